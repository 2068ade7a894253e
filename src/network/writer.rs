//! Writes responses: parts in memory with vectored writes, ranges of files through the kernel (sendfile).
//!
//! If a range is not in the page cache, the blocking pool reads it first, so that a consumer far behind the log end
//! does not make others wait for the disk.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;

use crate::{
    env::{File, Tasks, net::Stream},
    protocol::part::Part,
};

/// The maximum number of slices in one vectored write.
const MOST_SLICES: usize = 64;
/// The maximum number of bytes that one call sends from a file, so that other tasks get their turn.
const FILE_CHUNK_BYTES: usize = 1 << 20;

/// The bytes that the socket has accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The number of bytes on the wire.
    pub(super) bytes: usize,
    /// The number of bytes freed in memory.
    pub(super) freed_bytes: usize,
}

/// The parts of ready responses that are not written yet, in order.
#[derive(Default)]
pub(super) struct Writer {
    parts: VecDeque<Part>,
}

impl Writer {
    pub(super) fn push(&mut self, part: Part) {
        if !part.is_empty() {
            self.parts.push_back(part);
        }
    }

    /// Writes all parts. Calls `on_progress` whenever the socket has accepted bytes.
    pub(super) async fn write_to(
        &mut self,
        stream: &mut Box<dyn Stream>,
        tasks: &Tasks,
        mut on_progress: impl FnMut(Sent),
    ) -> io::Result<()> {
        loop {
            let sent = match self.parts.front_mut() {
                None => return Ok(()),
                Some(Part::Bytes(_)) => {
                    let bytes = self.write_bytes(stream).await?;
                    Sent { bytes, freed_bytes: bytes }
                }
                Some(Part::File { file, position, length }) => {
                    let sent = send_file(stream, tasks, file, *position, (*length).min(FILE_CHUNK_BYTES)).await?;
                    *position += sent as u64;
                    *length -= sent;
                    if *length == 0 {
                        self.parts.pop_front();
                    }
                    Sent { bytes: sent, freed_bytes: 0 }
                }
            };
            on_progress(sent);
        }
    }

    async fn write_bytes(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<usize> {
        let mut slices = [io::IoSlice::new(&[]); MOST_SLICES];
        let mut count = 0;
        for part in self.parts.iter().take(MOST_SLICES) {
            let Part::Bytes(bytes) = part else { break };
            slices[count] = io::IoSlice::new(bytes);
            count += 1;
        }
        let sent = stream.write_vectored(&slices[..count]).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut written = sent;
        while let Some(Part::Bytes(bytes)) = self.parts.front_mut() {
            if written < bytes.len() {
                bytes.advance(written);
                break;
            }
            written -= bytes.len();
            self.parts.pop_front();
        }
        Ok(sent)
    }
}

async fn send_file(
    stream: &mut Box<dyn Stream>,
    tasks: &Tasks,
    file: &Arc<dyn File>,
    position: u64,
    length: usize,
) -> io::Result<usize> {
    if !file.is_cached(position, length) {
        let file = file.clone();
        tasks.blocking("read ahead", move || read(&*file, position, length).map(drop)).await?;
    }
    if let (Some(socket), Some(descriptor)) = (stream.socket(), file.fd()) {
        let sent = socket.send_file(descriptor, position, length).await?;
        return if sent == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(sent) };
    }
    let mut bytes = Bytes::from(read(&**file, position, length)?);
    stream.write_all_buf(&mut bytes).await?;
    Ok(length)
}

fn read(file: &dyn File, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, position)?;
    Ok(buffer)
}
