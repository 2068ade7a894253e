//! The four codecs of Kafka record batches: framing as Kafka's clients write it, and a hard cap on what comes out.
//!
//! Owns: gzip, snappy (xerial-framed as the Java client writes it, and raw as others do), lz4 frames, zstd.
//! Leaves to others: when records must be opened at all (`log/validator.rs`), and what is inside (`record_batch.rs`).
//!
//! Compressed bytes come from clients, so nothing here believes a length it reads: output grows as it is produced
//! and stops at the caller's cap (32 KiB of zstd can otherwise become a GiB).

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::record_batch::Compression;

/// Why a block could not be compressed or opened.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than the caller allows; nothing beyond the cap was kept.
    #[error("{} data expands to more than {max_output_bytes} bytes", name(*codec))]
    TooLarge { codec: Compression, max_output_bytes: usize },
    /// The bytes are not what this codec writes.
    #[error("bad {} data: {source}", name(*codec))]
    Corrupt { codec: Compression, source: io::Error },
}

/// Opens one compressed block, holding at most `max_output_bytes` of output (and the codec's own window).
///
/// # Errors
/// [`CompressionError::TooLarge`] when the block expands beyond the cap, [`CompressionError::Corrupt`] when it is
/// not valid for this codec or ends early.
pub fn decompress(codec: Compression, input: &[u8], max_output_bytes: usize) -> Result<Bytes, CompressionError> {
    let mut output = Vec::new();
    let opened = match codec {
        Compression::None => read_capped(input, max_output_bytes, &mut output),
        // Java's GZIPInputStream reads on over concatenated members, so we do.
        Compression::Gzip => read_capped(flate2::read::MultiGzDecoder::new(input), max_output_bytes, &mut output),
        Compression::Snappy => snappy::decompress(input, max_output_bytes, &mut output),
        Compression::Lz4 => lz4_frame(input).and_then(|frame| read_capped(frame, max_output_bytes, &mut output)),
        Compression::Zstd => zstd_frames(input).and_then(|frames| read_capped(frames, max_output_bytes, &mut output)),
    };
    match opened {
        Ok(Fit::Whole) => Ok(output.into()),
        Ok(Fit::TooLarge) => Err(CompressionError::TooLarge { codec, max_output_bytes }),
        Err(source) => Err(CompressionError::Corrupt { codec, source }),
    }
}

/// Compresses one block the way Kafka's own clients frame it.
///
/// `level` is the codec's own scale (gzip 1–9, zstd up to 22); `None` is Kafka's default. Snappy has no levels, and
/// lz4 here has one speed: Kafka's lz4 levels only trade time for size, the result reads the same.
///
/// # Errors
/// [`CompressionError::Corrupt`] when the codec itself fails, which for bytes in memory means a level out of range.
pub fn compress(codec: Compression, level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressionError> {
    match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => gzip(level, input),
        Compression::Snappy => snappy::compress(input),
        Compression::Lz4 => lz4(input),
        // zstd takes level 0 for its default, 3, which is Kafka's too.
        Compression::Zstd => zstd::stream::encode_all(input, level.unwrap_or(0)),
    }
    .map(Bytes::from)
    .map_err(|source| CompressionError::Corrupt { codec, source })
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

/// Whether the output stayed within its cap.
enum Fit {
    Whole,
    TooLarge,
}

/// Reads to the end, but never more than one byte over the cap. Room is made in large steps that end at the cap, so that
/// a bomb costs little more than the cap.
fn read_capped(mut reader: impl Read, max_output_bytes: usize, output: &mut Vec<u8>) -> io::Result<Fit> {
    const LEAST_STEP_BYTES: usize = 64 << 10;
    let limit = max_output_bytes.saturating_add(1);
    while output.len() < limit {
        if output.len() == output.capacity() {
            output.reserve_exact((3 * output.len()).max(LEAST_STEP_BYTES).min(limit - output.len()));
        }
        let room = (output.capacity() - output.len()).min(limit - output.len());
        if reader.by_ref().take(room as u64).read_to_end(output)? == 0 {
            break;
        }
    }
    Ok(if output.len() > max_output_bytes { Fit::TooLarge } else { Fit::Whole })
}

fn gzip(level: Option<i32>, input: &[u8]) -> io::Result<Vec<u8>> {
    let level = match level {
        // -1 is Java's Deflater.DEFAULT_COMPRESSION and Kafka's default for compression.gzip.level.
        None | Some(-1) => flate2::Compression::default(),
        Some(level @ 0..=9) => flate2::Compression::new(level.unsigned_abs()),
        Some(level) => return Err(invalid(format!("there is no gzip level {level}"))),
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(input.len() / 2), level);
    encoder.write_all(input)?;
    encoder.finish()
}

fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // As Lz4BlockOutputStream: independent 64 KiB blocks, no checksums but the header's.
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::with_capacity(input.len() / 2));
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::other)
}

/// A reader over the first lz4 frame; what follows it is ignored, as Lz4BlockInputStream does.
fn lz4_frame(input: &[u8]) -> io::Result<impl Read + '_> {
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

fn zstd_frames(input: &[u8]) -> io::Result<impl Read + '_> {
    // The decoder allocates its window from the header. 2^27 is what zstd-jni in Apache's clients accepts, and what
    // level 22 writes; a window is not touched before data fills it.
    const MAX_WINDOW_LOG: u32 = 27;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Snappy has no streaming format of its own; Kafka uses that of the xerial Java library.
mod snappy {
    use super::{Fit, io};

    /// Magic, version 1, lowest compatible version 1 (org.xerial.snappy.SnappyCodec).
    const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
    /// SnappyOutputStream's default block.
    const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
    /// A snappy copy element turns three bytes into at most 64, so no block grows by more than this factor.
    const MAX_EXPANSION: usize = 32;

    pub(super) fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = snap::raw::Encoder::new();
        let mut output = Vec::with_capacity(XERIAL_HEADER.len() + input.len() / 2);
        output.extend_from_slice(&XERIAL_HEADER);
        for block in input.chunks(XERIAL_BLOCK_BYTES) {
            let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
            let length = u32::try_from(compressed.len()).map_err(io::Error::other)?;
            output.extend_from_slice(&length.to_be_bytes());
            output.extend_from_slice(&compressed);
        }
        Ok(output)
    }

    /// Takes either form: librdkafka and others write one raw block without the xerial framing.
    pub(super) fn decompress(input: &[u8], max_output_bytes: usize, output: &mut Vec<u8>) -> io::Result<Fit> {
        let mut decoder = snap::raw::Decoder::new();
        if !input.starts_with(XERIAL_MAGIC) {
            return block(&mut decoder, input, max_output_bytes, output);
        }
        let mut rest = input;
        while !rest.is_empty() {
            // Concatenated streams repeat the header between blocks; SnappyInputStream reads on.
            if rest.starts_with(XERIAL_MAGIC) {
                rest = rest.get(XERIAL_HEADER.len()..).ok_or_else(ended_early)?;
                continue;
            }
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(ended_early)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (compressed, after) = after.split_at_checked(length).ok_or_else(ended_early)?;
            if let Fit::TooLarge = block(&mut decoder, compressed, max_output_bytes, output)? {
                return Ok(Fit::TooLarge);
            }
            rest = after;
        }
        Ok(Fit::Whole)
    }

    /// Appends one raw block. Its declared length is checked against the cap and against what snappy can do at all
    /// before memory is taken for it.
    fn block(
        decoder: &mut snap::raw::Decoder,
        compressed: &[u8],
        max_output_bytes: usize,
        output: &mut Vec<u8>,
    ) -> io::Result<Fit> {
        let length = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
        if length > compressed.len().saturating_mul(MAX_EXPANSION) {
            return Err(super::invalid("declared length cannot come from a block of this size"));
        }
        if length > max_output_bytes.saturating_sub(output.len()) {
            return Ok(Fit::TooLarge);
        }
        let start = output.len();
        output.resize(start + length, 0);
        let written = decoder.decompress(compressed, &mut output[start..]).map_err(io::Error::other)?;
        output.truncate(start + written);
        Ok(Fit::Whole)
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
            let refused = decompress(codec, &packed, MIB);
            assert!(matches!(refused, Err(CompressionError::TooLarge { max_output_bytes: MIB, .. })), "{codec:?}");
            let one_short = decompress(codec, &packed, input.len() - 1);
            assert!(matches!(one_short, Err(CompressionError::TooLarge { .. })), "{codec:?}");
        }
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
