//! The four codecs of Kafka record batches, with the framing of Kafka's clients. Blocks are decompressed piece by
//! piece.
//!
//! Owns gzip, snappy (with xerial framing like the Java client, and raw like other clients), lz4 frames, and zstd.
//! Leaves the decision when records must be decompressed to `log/validator.rs`, and their content to `record_batch.rs`.
//!
//! Compressed bytes come from clients, so no length in them is trusted. At any time only a piece of 64 KiB is
//! decompressed, or the window that the codec needs. The window and the sum of all pieces are limited; otherwise 32 KiB
//! of zstd could become 1 GiB.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use bytes::Bytes;

use super::record_batch::Compression;

/// The size of a decompressed piece if the codec does not define it.
const PIECE_BYTES: usize = 64 << 10;
/// zstd-jni in Apache's clients accepts up to 2^27, and level 22 writes that.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// The limits for the decompression of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// The maximum size of the decompressed block.
    pub opened_bytes: usize,
    /// The maximum size of the codec's window: the window of a zstd frame, or a whole block of snappy. A zstd frame may
    /// declare a larger window, since level 22 does so for data of any size, but then must not fill it.
    pub window_bytes: usize,
}

impl OpenLimits {
    /// The limits for blocks that were accepted before: those of Apache's clients.
    pub const STORED: OpenLimits =
        OpenLimits { opened_bytes: i32::MAX as usize, window_bytes: 1 << MAX_ZSTD_WINDOW_LOG };
}

/// Why a block could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than the limit.
    #[error("{} data {}", name(*codec), source)]
    TooLarge { codec: Compression, source: io::Error },
    /// The bytes are invalid for this codec.
    #[error("bad {} data: {source}", name(*codec))]
    Corrupt { codec: Compression, source: io::Error },
}

impl CompressionError {
    /// Converts an error of [`Opened`] or of [`compress_to`].
    pub fn of(codec: Compression, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::FileTooLarge => CompressionError::TooLarge { codec, source },
            _ => CompressionError::Corrupt { codec, source },
        }
    }
}

/// Opens one compressed block, which can then be read in pieces. An error of kind `FileTooLarge` means that it exceeds
/// the limits; any other means that it is invalid for this codec or ends early.
///
/// # Errors
/// The same errors as from reading, if the first bytes already show them.
pub fn open<'a>(codec: Compression, input: &'a [u8], limits: OpenLimits) -> io::Result<Opened<'a>> {
    let mut most_bytes = limits.opened_bytes;
    let pieces: Box<dyn BufRead + 'a> = match codec {
        Compression::None => Box::new(input),
        // Like Java's GZIPInputStream, this reads concatenated members.
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(PIECE_BYTES, flate2::bufread::MultiGzDecoder::new(input)))
        }
        Compression::Snappy => Box::new(snappy::Blocks::new(input, limits.window_bytes)),
        Compression::Lz4 => Box::new(lz4_frame(input)?),
        Compression::Zstd => {
            if zstd_window_bytes(input).is_some_and(|bytes| bytes > limits.window_bytes as u64) {
                // The decoder uses only as much of the window as it has written.
                most_bytes = most_bytes.min(limits.window_bytes);
            }
            let mut frames = zstd::stream::read::Decoder::with_buffer(input)?;
            frames.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(PIECE_BYTES, frames))
        }
    };
    Ok(Opened { pieces, most_bytes, left_bytes: most_bytes })
}

/// A compressed block that is being read.
pub struct Opened<'a> {
    pieces: Box<dyn BufRead + 'a>,
    most_bytes: usize,
    left_bytes: usize,
}

impl BufRead for Opened<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let piece = self.pieces.fill_buf()?;
        if piece.len() > self.left_bytes {
            return Err(too_large(self.most_bytes));
        }
        Ok(piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.left_bytes -= bytes;
        self.pieces.consume(bytes);
    }
}

impl Read for Opened<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

/// Decompresses a whole block, for callers that need all of it at once.
///
/// # Errors
/// [`CompressionError::TooLarge`] if the block expands beyond `max_output_bytes`, [`CompressionError::Corrupt`] if it
/// is invalid for this codec or ends early.
pub fn decompress(codec: Compression, input: &[u8], max_output_bytes: usize) -> Result<Bytes, CompressionError> {
    let limits = OpenLimits { opened_bytes: max_output_bytes, ..OpenLimits::STORED };
    let mut output = Vec::new();
    match open(codec, input, limits).and_then(|mut opened| opened.read_to_end(&mut output)) {
        Ok(_) => Ok(output.into()),
        Err(source) => Err(CompressionError::of(codec, source)),
    }
}

/// Compresses the bytes that `fill` writes into `sink`, with the framing of Kafka's clients, and returns `sink`.
///
/// `level` has the range of the codec (gzip 1–9, zstd up to 22); `None` is Kafka's default. Snappy has no levels. lz4
/// ignores the level here: Kafka's lz4 levels only trade time for size, and every reader can read the result.
///
/// # Errors
/// The errors of `fill` and `sink`, and a level out of range.
pub fn compress_to<W: Write>(
    codec: Compression,
    level: Option<i32>,
    mut sink: W,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<W> {
    match codec {
        Compression::None => {
            fill(&mut sink)?;
            Ok(sink)
        }
        Compression::Gzip => {
            // Small writes to the encoder are expensive.
            let encoder = flate2::write::GzEncoder::new(sink, gzip_level(level)?);
            let mut buffered = BufWriter::with_capacity(PIECE_BYTES, encoder);
            fill(&mut buffered)?;
            buffered.into_inner()?.finish()
        }
        Compression::Snappy => {
            let mut encoder = snappy::Encoder::new(sink)?;
            fill(&mut encoder)?;
            encoder.finish()
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(lz4_frame_info(), sink);
            fill(&mut encoder)?;
            Ok(encoder.finish()?)
        }
        Compression::Zstd => {
            // For zstd, level 0 means its default, 3, which is also Kafka's.
            let encoder = zstd::stream::write::Encoder::new(sink, level.unwrap_or(0))?;
            let mut buffered = BufWriter::with_capacity(PIECE_BYTES, encoder);
            fill(&mut buffered)?;
            buffered.into_inner()?.finish()
        }
    }
}

/// Compresses one block, see [`compress_to`].
///
/// # Errors
/// [`CompressionError::Corrupt`] if the level is out of range.
pub fn compress(codec: Compression, level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressionError> {
    compress_to(codec, level, Vec::with_capacity(input.len() / 2), |writer| writer.write_all(input))
        .map(Bytes::from)
        .map_err(|source| CompressionError::of(codec, source))
}

/// Kafka's name of the codec, as in `compression.type`.
fn name(codec: Compression) -> &'static str {
    match codec {
        Compression::None => "uncompressed",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

fn gzip_level(level: Option<i32>) -> io::Result<flate2::Compression> {
    match level {
        // -1 is Java's Deflater.DEFAULT_COMPRESSION and Kafka's default for compression.gzip.level.
        None | Some(-1) => Ok(flate2::Compression::default()),
        Some(level @ 0..=9) => Ok(flate2::Compression::new(level.unsigned_abs())),
        Some(level) => Err(invalid(format!("there is no gzip level {level}"))),
    }
}

/// As Lz4BlockOutputStream: independent blocks of 64 KiB, no checksums except that of the header.
fn lz4_frame_info() -> lz4_flex::frame::FrameInfo {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB)
}

/// A reader of the first lz4 frame. Like Lz4BlockInputStream it ignores the bytes after it. Its pieces are the blocks,
/// of at most 4 MiB.
fn lz4_frame(input: &[u8]) -> io::Result<impl BufRead + '_> {
    // The decoder accepts an end between two blocks as the end of the frame; for Java the frame is truncated.
    let length = lz4_frame_length(input).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(lz4_flex::frame::FrameDecoder::new(&input[..length]))
}

/// Finds the end of the first frame from its block lengths; `None` if the frame is truncated or not supported.
fn lz4_frame_length(input: &[u8]) -> Option<usize> {
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    const BLOCK_INDEPENDENCE: u8 = 0x20;
    const BLOCK_CHECKSUM: u8 = 0x10;
    const CONTENT_SIZE: u8 = 0x08;
    const CONTENT_CHECKSUM: u8 = 0x04;
    const STORED_PLAIN: u32 = 0x8000_0000;
    let four = |at: usize| Some(*input.get(at..)?.first_chunk::<4>()?);
    let flags = *input.get(MAGIC.len())?;
    let has = |flag: u8| flags & flag != 0;
    // Other magics are skippable or legacy frames, which no Kafka client writes and the Java client cannot read. The
    // Java client cannot read dependent blocks either, so a batch with them could never be consumed.
    if four(0)? != MAGIC || !has(BLOCK_INDEPENDENCE) {
        return None;
    }
    let mut at: usize = MAGIC.len() + 3 + if has(CONTENT_SIZE) { 8 } else { 0 };
    loop {
        let length = u32::from_le_bytes(four(at)?) & !STORED_PLAIN;
        at += 4;
        if length == 0 {
            let end = at + if has(CONTENT_CHECKSUM) { 4 } else { 0 };
            return (end <= input.len()).then_some(end);
        }
        at = at.checked_add(length as usize)? + if has(BLOCK_CHECKSUM) { 4 } else { 0 };
    }
}

/// The window size that the first zstd frame declares (RFC 8878, 3.1.1.1); `None` if it is not a frame.
fn zstd_window_bytes(input: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    const SINGLE_SEGMENT: u8 = 0x20;
    let (descriptor, rest) = input.strip_prefix(&MAGIC)?.split_first()?;
    if descriptor & SINGLE_SEGMENT == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // In a single-segment frame the window is the content. The content size follows the dictionary id.
    let size = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*size.first()?),
        1 => u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*size.first_chunk()?)),
        _ => u64::from_le_bytes(*size.first_chunk()?),
    })
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn too_large(most_bytes: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("expands to more than {most_bytes} bytes"))
}

/// Snappy has no streaming format; Kafka uses the one of the xerial Java library.
mod snappy {
    use std::io::{self, BufRead, Read, Write};

    /// Magic, version 1, lowest compatible version 1 (org.xerial.snappy.SnappyCodec).
    const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
    /// SnappyOutputStream's default block.
    const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
    /// A snappy copy element expands three bytes to at most 64, so no block grows by more than this factor.
    const MAX_EXPANSION: usize = 32;

    /// Compresses to xerial's blocks.
    pub(super) struct Encoder<W> {
        sink: W,
        encoder: snap::raw::Encoder,
        block: Vec<u8>,
        compressed: Vec<u8>,
    }

    impl<W: Write> Encoder<W> {
        pub(super) fn new(mut sink: W) -> io::Result<Self> {
            sink.write_all(&XERIAL_HEADER)?;
            let compressed = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)];
            Ok(Encoder { sink, encoder: snap::raw::Encoder::new(), block: Vec::new(), compressed })
        }

        pub(super) fn finish(mut self) -> io::Result<W> {
            if !self.block.is_empty() {
                let block = std::mem::take(&mut self.block);
                self.write_block(&block)?;
            }
            Ok(self.sink)
        }

        fn write_block(&mut self, block: &[u8]) -> io::Result<()> {
            let bytes = self.encoder.compress(block, &mut self.compressed).map_err(io::Error::other)?;
            self.sink.write_all(&(bytes as u32).to_be_bytes())?;
            self.sink.write_all(&self.compressed[..bytes])
        }
    }

    impl<W: Write> Write for Encoder<W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.block.is_empty() && bytes.len() >= XERIAL_BLOCK_BYTES {
                self.write_block(&bytes[..XERIAL_BLOCK_BYTES])?;
                return Ok(XERIAL_BLOCK_BYTES);
            }
            let taken = bytes.len().min(XERIAL_BLOCK_BYTES - self.block.len());
            self.block.extend_from_slice(&bytes[..taken]);
            if self.block.len() == XERIAL_BLOCK_BYTES {
                let mut block = std::mem::take(&mut self.block);
                self.write_block(&block)?;
                block.clear();
                self.block = block;
            }
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Decompresses block by block. Accepts both forms: librdkafka and others write one raw block without xerial's
    /// framing.
    pub(super) struct Blocks<'a> {
        rest: &'a [u8],
        is_xerial: bool,
        most_block_bytes: usize,
        decoder: snap::raw::Decoder,
        block: Vec<u8>,
        read: usize,
    }

    impl<'a> Blocks<'a> {
        pub(super) fn new(input: &'a [u8], most_block_bytes: usize) -> Self {
            let is_xerial = input.starts_with(XERIAL_MAGIC);
            let decoder = snap::raw::Decoder::new();
            Blocks { rest: input, is_xerial, most_block_bytes, decoder, block: Vec::new(), read: 0 }
        }

        /// Returns the compressed bytes of the next block.
        fn next(&mut self) -> io::Result<Option<&'a [u8]>> {
            // Concatenated streams repeat the header between blocks; SnappyInputStream accepts that too.
            while self.is_xerial && self.rest.starts_with(XERIAL_MAGIC) {
                self.rest = self.rest.get(XERIAL_HEADER.len()..).ok_or_else(ended_early)?;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            if !self.is_xerial {
                return Ok(Some(std::mem::take(&mut self.rest)));
            }
            let (length, after) = self.rest.split_first_chunk::<4>().ok_or_else(ended_early)?;
            let (block, rest) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(ended_early)?;
            self.rest = rest;
            Ok(Some(block))
        }

        /// Decompresses a block. Before memory is allocated, its declared length is checked against the limit and
        /// against the maximum expansion of snappy.
        fn open(&mut self, compressed: &[u8]) -> io::Result<()> {
            let length = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
            if length > compressed.len().saturating_mul(MAX_EXPANSION) {
                return Err(super::invalid("the declared length is too large for a block of this size"));
            }
            if length > self.most_block_bytes {
                return Err(super::too_large(self.most_block_bytes));
            }
            self.block.resize(length, 0);
            self.read = 0;
            let opened = self.decoder.decompress(compressed, &mut self.block);
            self.block.truncate(*opened.as_ref().unwrap_or(&0));
            opened.map(drop).map_err(io::Error::other)
        }
    }

    impl BufRead for Blocks<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            while self.read == self.block.len()
                && let Some(compressed) = self.next()?
            {
                self.open(compressed)?;
            }
            Ok(&self.block[self.read..])
        }

        fn consume(&mut self, bytes: usize) {
            self.read += bytes;
        }
    }

    impl Read for Blocks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.fill_buf()?.read(buffer)?;
            self.consume(bytes);
            Ok(bytes)
        }
    }

    fn ended_early() -> io::Error {
        io::ErrorKind::UnexpectedEof.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    const MIB: usize = 1024 * 1024;

    fn text(bytes: usize) -> Vec<u8> {
        (0_u64..)
            .flat_map(|n| format!("record {} value {};", n, n.wrapping_mul(0x9E37_79B9)).into_bytes())
            .take(bytes)
            .collect()
    }

    fn corrupt(codec: Compression, input: &[u8]) -> bool {
        matches!(decompress(codec, input, MIB), Err(CompressionError::Corrupt { .. }))
    }

    #[test]
    fn every_codec_returns_what_went_in_at_every_size() {
        for codec in ALL {
            for bytes in [0, 1, 15, 16, 100, 32 * 1024, 32 * 1024 + 1, 64 * 1024, 300_000] {
                let input = text(bytes);
                let packed = compress(codec, None, &input).unwrap();
                assert_eq!(decompress(codec, &packed, input.len()).unwrap(), input, "{codec:?} {bytes}");
                if codec != Compression::None && bytes > 30_000 {
                    assert!(packed.len() < bytes * 2 / 3, "{codec:?} did not compress");
                }
            }
        }
    }

    #[test]
    fn output_stops_at_the_cap_for_every_codec() {
        let input = vec![b'a'; 64 * MIB];
        for codec in ALL {
            let packed = compress(codec, None, &input).unwrap();
            for most_bytes in [MIB, input.len() - 1] {
                let refused = decompress(codec, &packed, most_bytes);
                assert!(matches!(refused, Err(CompressionError::TooLarge { .. })), "{codec:?} {refused:?}");
            }
            assert!(decompress(codec, &packed, input.len()).is_ok(), "{codec:?}");
        }
    }

    #[test]
    fn inv_s2_blocks_are_opened_in_small_pieces() {
        let input = vec![b'a'; 64 * MIB];
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let packed = compress(codec, None, &input).unwrap();
            let mut opened =
                open(codec, &packed, OpenLimits { opened_bytes: input.len(), window_bytes: 8 * MIB }).unwrap();
            let mut bytes = 0;
            loop {
                let piece = opened.fill_buf().unwrap().len();
                if piece == 0 {
                    break;
                }
                assert!(piece <= PIECE_BYTES, "{codec:?}");
                opened.consume(piece);
                bytes += piece;
            }
            assert_eq!(bytes, input.len(), "{codec:?}");
        }
    }

    #[test]
    fn inv_s2_what_a_codec_looks_back_on_is_bounded() {
        const LIMITS: OpenLimits = OpenLimits { opened_bytes: 64 * MIB, window_bytes: MIB };
        let too_large = |codec, packed: &[u8]| {
            let read = open(codec, packed, LIMITS).and_then(|mut opened| io::copy(&mut opened, &mut io::sink()));
            read.is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge)
        };
        // Level 22 always declares a window of 128 MiB, level 3 one of 2 MiB. Then the decompressed size is limited
        // instead.
        for level in [3, 22] {
            for (bytes, refused) in [(1000, false), (MIB, false), (MIB + 1, true)] {
                let packed = compress(Compression::Zstd, Some(level), &text(bytes)).unwrap();
                assert_eq!(too_large(Compression::Zstd, &packed), refused, "level {level}, {bytes} bytes");
            }
        }
        let packed = compress(Compression::Zstd, Some(1), &text(3 * MIB)).unwrap();
        assert_eq!(zstd_window_bytes(&packed), Some(512 << 10));
        assert!(!too_large(Compression::Zstd, &packed));
        // Raw snappy is one block.
        let mut encoder = snap::raw::Encoder::new();
        assert!(!too_large(Compression::Snappy, &encoder.compress_vec(&text(MIB)).unwrap()));
        assert!(too_large(Compression::Snappy, &encoder.compress_vec(&text(MIB + 1)).unwrap()));
        assert!(!too_large(Compression::Snappy, &compress(Compression::Snappy, None, &text(MIB + 1)).unwrap()));
    }

    #[test]
    fn zstd_frames_tell_their_window() {
        // With bulk compression zstd knows the size and writes it instead of a window.
        for bytes in [10, 255, 256, 65_791, 65_792, 300_000] {
            let packed = zstd::bulk::compress(&text(bytes), 3).unwrap();
            assert_eq!(zstd_window_bytes(&packed), Some(bytes as u64));
        }
        assert_eq!(zstd_window_bytes(&compress(Compression::Zstd, None, b"x").unwrap()), Some(2 << 20));
        assert_eq!(zstd_window_bytes(&compress(Compression::Zstd, Some(22), b"x").unwrap()), Some(128 << 20));
        assert_eq!(zstd_window_bytes(b"(\xb5/"), None);
        assert_eq!(zstd_window_bytes(b""), None);
    }

    #[test]
    fn five_bytes_of_raw_snappy_do_not_buy_four_gigabytes() {
        assert!(corrupt(Compression::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f]));
    }

    #[test]
    fn truncated_and_foreign_bytes_are_corrupt() {
        let input = text(100_000);
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let packed = compress(codec, None, &input).unwrap();
            for cut in [packed.len() - 1, packed.len() / 2, 18, 3] {
                assert!(corrupt(codec, &packed[..cut]), "{codec:?} cut at {cut}");
            }
            assert!(corrupt(codec, b"this was never compressed by anything"), "{codec:?}");
        }
    }

    #[test]
    fn snappy_reads_raw_blocks_as_librdkafka_writes_them() {
        for bytes in [1, 15, 16, 5_000, 200_000] {
            let input = text(bytes);
            let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
            assert_eq!(decompress(Compression::Snappy, &raw, bytes).unwrap(), input);
        }
    }

    #[test]
    fn concatenated_gzip_members_and_snappy_streams_read_as_one() {
        for codec in [Compression::Gzip, Compression::Snappy] {
            let mut both = compress(codec, None, b"first ").unwrap().to_vec();
            both.extend_from_slice(&compress(codec, None, b"second").unwrap());
            assert_eq!(decompress(codec, &both, MIB).unwrap(), &b"first second"[..], "{codec:?}");
        }
    }

    #[test]
    fn vectors_written_by_the_java_client_open() {
        // "ottla ottla ottla", each by the stream of org.apache.kafka.common.compress in kafka-clients 4.3.1.
        for (codec, hex) in JAVA_VECTORS {
            let packed: Vec<u8> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            assert_eq!(decompress(*codec, &packed, MIB).unwrap(), &b"ottla ottla ottla"[..], "{codec:?}");
        }
    }

    const JAVA_VECTORS: &[(Compression, &str)] = &[
        (Compression::Gzip, "1f8b08000000000000ffcb2f29c94954c8479000f85351f511000000"),
        (Compression::Snappy, "82534e415050590000000001000000010000001311406f74746c61206f74746c61206f74746c61"),
        (Compression::Lz4, "04224d18604082110000806f74746c61206f74746c61206f74746c6100000000"),
        (Compression::Zstd, "28b52ffd0058640000306f74746c61200100314a11010000"),
    ];

    #[test]
    fn lz4_with_dependent_blocks_is_refused_as_java_does() {
        use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
        let mut encoder = FrameEncoder::with_frame_info(FrameInfo::new().block_mode(BlockMode::Linked), Vec::new());
        encoder.write_all(b"linked").unwrap();
        assert!(corrupt(Compression::Lz4, &encoder.finish().unwrap()));
    }

    #[test]
    fn a_zstd_window_beyond_128_mib_is_refused() {
        // Frame header: magic, descriptor 0 (window byte follows), window exponent 28 - 10 in the upper five bits.
        assert!(corrupt(Compression::Zstd, &[0x28, 0xB5, 0x2F, 0xFD, 0x00, (28 - 10) << 3, 0x01, 0x00, 0x00]));
        assert!(
            decompress(Compression::Zstd, &[0x28, 0xB5, 0x2F, 0xFD, 0x00, (21 - 10) << 3, 0x01, 0x00, 0x00], 10)
                .is_ok()
        );
    }

    #[test]
    fn levels_are_taken_and_gzip_refuses_unknown_ones() {
        let input = text(50_000);
        for (codec, level) in [
            (Compression::Gzip, 1),
            (Compression::Gzip, 9),
            (Compression::Zstd, -5),
            (Compression::Zstd, 19),
            (Compression::Lz4, 17),
        ] {
            let packed = compress(codec, Some(level), &input).unwrap();
            assert_eq!(decompress(codec, &packed, input.len()).unwrap(), input);
        }
        assert!(compress(Compression::Gzip, Some(12), &input).is_err());
    }
}
