//! The four codecs of Kafka record batches: framing as Kafka's clients write it, opened piece by piece.
//!
//! Owns: gzip, snappy (xerial-framed as the Java client writes it, and raw as others do), lz4 frames, zstd.
//! Leaves to others: when records must be opened at all (`log/validator.rs`), and what is inside (`record_batch.rs`).
//!
//! Compressed bytes come from clients, so nothing here believes a length it reads: what is open at a time is a piece
//! of 64 KiB, or what the codec itself must look back on, and both that and the sum of all pieces have a limit
//! (32 KiB of zstd can otherwise become a GiB).

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use bytes::Bytes;

use super::record_batch::Compression;

/// What is opened at a time where the codec does not say.
const PIECE_BYTES: usize = 64 << 10;
/// 2^27 is what zstd-jni in Apache's clients accepts, and what level 22 writes.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// What a compressed block may make of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// All that comes out of it.
    pub opened_bytes: usize,
    /// What the codec keeps to look back on: the window of a zstd frame, a block of snappy as a whole. A zstd frame
    /// may ask for a larger window, since level 22 does so for data of any size, but then must not fill it.
    pub window_bytes: usize,
}

impl OpenLimits {
    /// For blocks that were accepted before: what Apache's clients would open.
    pub const STORED: OpenLimits =
        OpenLimits { opened_bytes: i32::MAX as usize, window_bytes: 1 << MAX_ZSTD_WINDOW_LOG };
}

/// Why a block could not be compressed or opened.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than the caller allows.
    #[error("{} data {}", name(*codec), source)]
    TooLarge { codec: Compression, source: io::Error },
    /// The bytes are not what this codec writes.
    #[error("bad {} data: {source}", name(*codec))]
    Corrupt { codec: Compression, source: io::Error },
}

impl CompressionError {
    /// What an error of [`open`]'s pieces, or of [`compress_to`], means.
    pub fn of(codec: Compression, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::FileTooLarge => CompressionError::TooLarge { codec, source },
            _ => CompressionError::Corrupt { codec, source },
        }
    }
}

/// Opens one compressed block, to be read in pieces. An error of kind `FileTooLarge` says that it grows beyond its
/// limits; any other, that it is not valid for this codec or ends early.
///
/// # Errors
/// As the pieces' own, where the first bytes are enough to tell.
pub fn open<'a>(codec: Compression, input: &'a [u8], limits: OpenLimits) -> io::Result<Opened<'a>> {
    let mut most_bytes = limits.opened_bytes;
    let pieces: Box<dyn BufRead + 'a> = match codec {
        Compression::None => Box::new(input),
        // Java's GZIPInputStream reads on over concatenated members, so we do.
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(PIECE_BYTES, flate2::bufread::MultiGzDecoder::new(input)))
        }
        Compression::Snappy => Box::new(snappy::Blocks::new(input, limits.window_bytes)),
        Compression::Lz4 => Box::new(lz4_frame(input)?),
        Compression::Zstd => {
            if zstd_window_bytes(input).is_some_and(|bytes| bytes > limits.window_bytes as u64) {
                // The decoder does not touch more of the window than it has written.
                most_bytes = most_bytes.min(limits.window_bytes);
            }
            let mut frames = zstd::stream::read::Decoder::with_buffer(input)?;
            frames.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(PIECE_BYTES, frames))
        }
    };
    Ok(Opened { pieces, most_bytes, left_bytes: most_bytes })
}

/// A block that is being opened.
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

/// Opens one compressed block as a whole, for those who need all of it at once.
///
/// # Errors
/// [`CompressionError::TooLarge`] when the block expands beyond `max_output_bytes`, [`CompressionError::Corrupt`] when
/// it is not valid for this codec or ends early.
pub fn decompress(codec: Compression, input: &[u8], max_output_bytes: usize) -> Result<Bytes, CompressionError> {
    let limits = OpenLimits { opened_bytes: max_output_bytes, ..OpenLimits::STORED };
    let mut output = Vec::new();
    match open(codec, input, limits).and_then(|mut opened| opened.read_to_end(&mut output)) {
        Ok(_) => Ok(output.into()),
        Err(source) => Err(CompressionError::of(codec, source)),
    }
}

/// Compresses what `fill` writes, the way Kafka's own clients frame it, into `sink`, which is returned.
///
/// `level` is the codec's own scale (gzip 1–9, zstd up to 22); `None` is Kafka's default. Snappy has no levels, and
/// lz4 here has one speed: Kafka's lz4 levels only trade time for size, the result reads the same.
///
/// # Errors
/// Those of `fill` and `sink`; the codecs themselves only refuse a level out of range.
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
            // Small writes are costly to the encoder.
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
            // zstd takes level 0 for its default, 3, which is Kafka's too.
            let encoder = zstd::stream::write::Encoder::new(sink, level.unwrap_or(0))?;
            let mut buffered = BufWriter::with_capacity(PIECE_BYTES, encoder);
            fill(&mut buffered)?;
            buffered.into_inner()?.finish()
        }
    }
}

/// Compresses one block as [`compress_to`].
///
/// # Errors
/// [`CompressionError::Corrupt`] when the level is out of range.
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

/// As Lz4BlockOutputStream: independent 64 KiB blocks, no checksums but the header's.
fn lz4_frame_info() -> lz4_flex::frame::FrameInfo {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB)
}

/// A reader over the first lz4 frame; what follows it is ignored, as Lz4BlockInputStream does. Its pieces are the
/// blocks, of 4 MiB at most.
fn lz4_frame(input: &[u8]) -> io::Result<impl BufRead + '_> {
    // The decoder takes an end between two blocks for the end of the frame; to Java it is a truncated one.
    let length = lz4_frame_length(input).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(lz4_flex::frame::FrameDecoder::new(&input[..length]))
}

/// Where the first frame ends, found by its block lengths alone; `None` when it does not.
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
    // Other magics are skippable or legacy frames, which no Kafka client writes and no Java client reads. Neither
    // does it read dependent blocks: a batch with them could never be consumed.
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

/// The window that the first zstd frame asks for (RFC 8878, 3.1.1.1); `None` where it is no frame.
fn zstd_window_bytes(input: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    const SINGLE_SEGMENT: u8 = 0x20;
    let (descriptor, rest) = input.strip_prefix(&MAGIC)?.split_first()?;
    if descriptor & SINGLE_SEGMENT == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // All of its content is one window. The content's size follows the dictionary's id.
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

/// Snappy has no streaming format of its own; Kafka uses that of the xerial Java library.
mod snappy {
    use std::io::{self, BufRead, Read, Write};

    /// Magic, version 1, lowest compatible version 1 (org.xerial.snappy.SnappyCodec).
    const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
    /// SnappyOutputStream's default block.
    const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
    /// A snappy copy element turns three bytes into at most 64, so no block grows by more than this factor.
    const MAX_EXPANSION: usize = 32;

    /// Compresses in xerial's blocks.
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

    /// Opens block by block. Takes either form: librdkafka and others write one raw block without xerial's framing.
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

        /// The next block's bytes, compressed.
        fn next(&mut self) -> io::Result<Option<&'a [u8]>> {
            // Concatenated streams repeat the header between blocks; SnappyInputStream reads on.
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

        /// Opens a block. Its declared length is checked against the limit and against what snappy can do at all
        /// before memory is taken for it.
        fn open(&mut self, compressed: &[u8]) -> io::Result<()> {
            let length = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
            if length > compressed.len().saturating_mul(MAX_EXPANSION) {
                return Err(super::invalid("declared length cannot come from a block of this size"));
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
        // Level 22 asks for 128 MiB whatever it is given, level 3 for 2: then what is opened is bounded instead.
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
        // One call gives zstd the size, which it then writes down in place of a window.
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
