//! Frames: a 32-bit length, then that many bytes.
//!
//! The length is checked against the limit before the body is read. A large frame gets a buffer of its size. A very
//! large one gets a buffer that grows as bytes arrive, so that a length without data costs nothing. The frame takes its
//! buffer with it, so an idle connection holds none. A frame is returned as one `Bytes`. Only bytes that were read
//! before its size was known (at most [`READ_AHEAD_BYTES`]) are copied. Small frames share a buffer, and one read may
//! return many of them.
//!
//! Leaves deadlines, the memory budget (reserved before a large frame is read) and responses to
//! `network/connection.rs`.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

/// The size of a read while no large frame is being received.
pub const READ_AHEAD_BYTES: usize = 32 * 1024;
/// A frame up to this size gets its whole buffer at once.
const LARGE_FRAME_BYTES: usize = 1024 * 1024;
/// The room for more of a very large frame, as a multiple of what has arrived. Each growth copies what has arrived;
/// room that is not used yet takes address space, but no memory.
const GROWTH: usize = 16;
/// If less room is left in the buffer, a read is not worth a system call.
const SMALLEST_READ_BYTES: usize = 4 * 1024;
const LENGTH_BYTES: usize = 4;

/// Why there is no next frame. Every one of these errors closes the connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is negative or above the limit (Kafka: InvalidReceiveException).
    #[error("a frame has {declared_bytes} bytes, but only 0 to {max_bytes} are allowed")]
    Length { declared_bytes: i32, max_bytes: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Splits the bytes of a connection into frames. A cancelled call loses no bytes.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    max_frame_bytes: usize,
}

impl FrameReader {
    /// A reader for a new connection. `max_frame_bytes` is `socket.request.max.bytes`, or less before authentication.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_frame_bytes }
    }

    /// Whether part of a frame has arrived. The connection is then slow, not idle.
    pub fn has_started(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The number of bytes that have arrived: of the first frame with its length field, and of the data after it.
    pub fn arrived_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The length of the first frame, once its first four bytes have arrived.
    ///
    /// # Errors
    /// [`FrameError::Length`].
    pub fn frame_bytes(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let declared_bytes = i32::from_be_bytes(*length);
        match usize::try_from(declared_bytes) {
            Ok(bytes) if bytes <= self.max_frame_bytes => Ok(Some(bytes)),
            _ => Err(FrameError::Length { declared_bytes, max_bytes: self.max_frame_bytes }),
        }
    }

    /// The size of the first frame including its length field, once that field has arrived.
    ///
    /// # Errors
    /// [`FrameError::Length`].
    pub fn whole_frame_bytes(&self) -> Result<Option<usize>, FrameError> {
        Ok(self.frame_bytes()?.map(|bytes| LENGTH_BYTES + bytes))
    }

    /// Returns the first frame without its length field, if it has arrived completely.
    ///
    /// # Errors
    /// [`FrameError::Length`].
    pub fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        match self.frame_bytes()? {
            Some(bytes) if self.buffer.len() >= LENGTH_BYTES + bytes => {
                self.buffer.advance(LENGTH_BYTES);
                let frame = self.buffer.split_to(bytes).freeze();
                if bytes > READ_AHEAD_BYTES {
                    // The data after the frame must not keep the large buffer alive.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                Ok(Some(frame))
            }
            _ => Ok(None),
        }
    }

    /// Returns the buffer with room for the next read.
    ///
    /// # Errors
    /// [`FrameError::Length`].
    pub fn space_to_read(&mut self) -> Result<&mut BytesMut, FrameError> {
        let arrived = self.buffer.len();
        let missing = self.frame_bytes()?.map_or(0, |bytes| (LENGTH_BYTES + bytes).saturating_sub(arrived));
        let room = self.buffer.capacity() - arrived;
        if missing <= READ_AHEAD_BYTES {
            if room < missing.max(SMALLEST_READ_BYTES) {
                self.buffer.reserve(READ_AHEAD_BYTES);
            }
        } else if room < missing && room < SMALLEST_READ_BYTES {
            // The buffer of a very large frame grows as data arrive, so that its length alone costs nothing.
            self.buffer.reserve(missing.min((GROWTH * arrived).max(LARGE_FRAME_BYTES)));
        }
        Ok(&mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&(body.len() as i32).to_be_bytes()[..], body].concat()
    }

    /// A source that returns at most `chunk_bytes` at a time and counts the reads.
    struct Trickle<'a> {
        bytes: &'a [u8],
        chunk_bytes: usize,
        reads: usize,
    }

    impl Trickle<'_> {
        /// Reads once into the reader's buffer. Returns the bytes read.
        fn read(&mut self, reader: &mut FrameReader) -> usize {
            self.reads += 1;
            let space = reader.space_to_read().unwrap();
            let room_bytes = space.capacity() - space.len();
            assert!(room_bytes > 0);
            let (now, later) = self.bytes.split_at(self.chunk_bytes.min(room_bytes).min(self.bytes.len()));
            space.extend_from_slice(now);
            self.bytes = later;
            now.len()
        }

        /// Reads until the next frame is complete. `None` at the end.
        fn next_frame(&mut self, reader: &mut FrameReader) -> Option<Bytes> {
            loop {
                if let Some(frame) = reader.take_frame().unwrap() {
                    return Some(frame);
                }
                if self.read(reader) == 0 {
                    assert!(!reader.has_started());
                    return None;
                }
            }
        }
    }

    #[test]
    fn frames_come_out_however_their_bytes_arrive() {
        let bodies: Vec<Vec<u8>> = [0, 1, 3, 4, 100, 40_000, 5, 70_000, 0, 3 * MIB, 9]
            .iter()
            .enumerate()
            .map(|(n, length)| vec![n as u8; *length])
            .collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        for chunk_bytes in [1, 3, 7, 1000, 65_536, usize::MAX] {
            // The large frames are not read byte by byte.
            let bodies = if chunk_bytes < 1000 { &bodies[..9] } else { &bodies[..] };
            let mut source = Trickle { bytes: &stream, chunk_bytes, reads: 0 };
            let mut reader = FrameReader::new(4 * MIB);
            for body in bodies {
                assert_eq!(source.next_frame(&mut reader).unwrap(), body);
            }
            if chunk_bytes >= 1000 {
                assert!(source.next_frame(&mut reader).is_none());
            }
        }
    }

    #[test]
    fn one_read_brings_many_small_frames() {
        let stream = frame(&[7; 60]).repeat(500);
        let mut source = Trickle { bytes: &stream, chunk_bytes: usize::MAX, reads: 0 };
        let mut reader = FrameReader::new(MIB);
        for _ in 0..500 {
            assert_eq!(source.next_frame(&mut reader).unwrap(), &[7; 60][..]);
        }
        assert!(source.reads <= 3, "{} reads for 32,000 bytes", source.reads);
    }

    #[test]
    fn a_frame_of_a_mebibyte_is_read_into_one_allocation() {
        let stream = frame(&vec![1; MIB]);
        let mut source = Trickle { bytes: &stream, chunk_bytes: 64 * 1024, reads: 0 };
        let mut reader = FrameReader::new(MIB);
        // The first read shows the length. After that the buffer must not move.
        source.read(&mut reader);
        assert_eq!(reader.frame_bytes().unwrap(), Some(MIB));
        source.read(&mut reader);
        let first = reader.buffer.as_ptr();
        let frame = source.next_frame(&mut reader).unwrap();
        assert_eq!(frame.as_ptr(), first.wrapping_add(LENGTH_BYTES));
        assert!(source.reads <= 20);
    }

    #[test]
    fn a_large_frame_takes_its_buffer_with_it() {
        let stream = [frame(&vec![1; 10 * MIB]), frame(&[2; 10])].concat();
        for chunk_bytes in [64 * 1024, usize::MAX] {
            let mut source = Trickle { bytes: &stream, chunk_bytes, reads: 0 };
            let mut reader = FrameReader::new(10 * MIB);
            source.read(&mut reader);
            assert_eq!(reader.frame_bytes().unwrap(), Some(10 * MIB));
            source.read(&mut reader);
            assert!(reader.buffer.capacity() <= 10 * MIB + 2 * READ_AHEAD_BYTES, "larger than the frame");
            let large = source.next_frame(&mut reader).unwrap();
            // The frame is the only owner of its buffer, so it can become a vector without a copy.
            assert!(large.is_unique());
            assert_eq!(source.next_frame(&mut reader).unwrap(), &[2; 10][..]);
            assert!(reader.buffer.capacity() <= READ_AHEAD_BYTES);
        }
    }

    #[test]
    fn impossible_lengths_are_refused_at_the_fourth_byte() {
        for (length, refused) in [(-1, true), (i32::MIN, true), (1001, true), (1000, false), (0, false)] {
            let mut reader = FrameReader::new(1000);
            reader.buffer.extend_from_slice(&i32::to_be_bytes(length)[..3]);
            assert!(reader.take_frame().unwrap().is_none());
            reader.buffer.extend_from_slice(&i32::to_be_bytes(length)[3..]);
            assert_eq!(matches!(reader.take_frame(), Err(FrameError::Length { .. })), refused, "{length}");
            assert_eq!(reader.space_to_read().is_err(), !(0..=1000).contains(&length));
        }
    }

    #[test]
    fn the_read_buffer_is_used_again_once_its_frames_are_gone() {
        let stream = frame(&[7; 1000]).repeat(200);
        let mut source = Trickle { bytes: &stream, chunk_bytes: 1004, reads: 0 };
        let mut reader = FrameReader::new(MIB);
        let mut places = std::collections::HashSet::new();
        for _ in 0..200 {
            places.insert(source.next_frame(&mut reader).unwrap().as_ptr());
        }
        assert!(places.len() <= 64, "{} places for 200 frames", places.len());
    }
}
