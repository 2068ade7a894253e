//! Searches an index file of sorted fixed-size entries, and reads as few of them as possible.

use std::{io, sync::Arc};

use crate::env::File;

/// A sorted file of fixed-size entries.
pub(crate) struct IndexReader {
    file: Arc<dyn File>,
    entries: u32,
}

impl IndexReader {
    pub(crate) fn new(file: Arc<dyn File>, entries: u32) -> Self {
        IndexReader { file, entries }
    }

    fn entry<const N: usize, E>(&self, at: u32, decode: impl Fn(&[u8; N]) -> E) -> io::Result<E> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, u64::from(at) * N as u64)?;
        Ok(decode(&bytes))
    }

    /// How many entries from the start satisfy `holds`; it must fail for all entries after the first failure.
    pub(crate) fn partition_point<const N: usize, E>(
        &self,
        decode: impl Fn(&[u8; N]) -> E,
        holds: impl Fn(&E) -> bool,
    ) -> io::Result<u32> {
        /// If this many entries are left to search, they are read at once.
        const BLOCK: u32 = 256;
        let (mut low, mut high) = (0, self.entries);
        while high - low > BLOCK {
            let middle = low + (high - low) / 2;
            if holds(&self.entry(middle, &decode)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut block = vec![0; (high - low) as usize * N];
        self.file.read_exact_at(&mut block, u64::from(low) * N as u64)?;
        let above = block.as_chunks::<N>().0.partition_point(|bytes| holds(&decode(bytes)));
        Ok(low + above as u32)
    }

    /// The last entry that satisfies `holds`.
    pub(crate) fn floor<const N: usize, E>(
        &self,
        decode: impl Fn(&[u8; N]) -> E,
        holds: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        match self.partition_point(&decode, holds)? {
            0 => Ok(None),
            above => self.entry(above - 1, decode).map(Some),
        }
    }

    /// The number of entries and the last entry, without the zeros that Apache Kafka leaves in the index of a segment
    /// it did not close.
    pub(crate) fn last<const N: usize, E>(&self, decode: impl Fn(&[u8; N]) -> E) -> io::Result<(u32, Option<E>)> {
        if self.entries == 0 {
            return Ok((0, None));
        }
        let bytes = self.entry(self.entries - 1, |bytes: &[u8; N]| *bytes)?;
        if bytes != [0; N] || self.entries == 1 {
            return Ok((self.entries, Some(decode(&bytes))));
        }
        let filled = self.partition_point(|bytes: &[u8; N]| *bytes, |bytes| *bytes != [0; N])?;
        let last = if filled == 0 { None } else { Some(self.entry(filled - 1, decode)?) };
        Ok((filled, last))
    }
}
