//! Writes log lines to standard output: a bounded queue and one thread that writes.
//!
//! A thread that logs never waits for the output and never sees an error. If the output is closed, full or not read,
//! lines are lost and counted; the count is logged once a line can be written again. [`flush`] is for the end of the
//! process.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Bytes of lines that may wait for the output; further lines are lost.
const MOST_QUEUED_BYTES: usize = 1 << 20;
/// Time between two attempts if a non-blocking output accepts nothing.
const BUSY_OUTPUT_RETRY: Duration = Duration::from_millis(20);
/// How long the process waits at its end until its log lines are read.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The output of this process, once it is started.
static OUTPUT: OnceLock<LogOutput> = OnceLock::new();

/// A writer of whole lines; clones write to the same output.
#[derive(Clone)]
pub struct LogOutput(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queued: Vec<u8>,
    queued_lines: u64,
    /// Lines lost since the last report.
    lost_lines: u64,
    /// Whether the thread is writing lines that it has taken from the queue.
    is_writing: bool,
}

impl LogOutput {
    /// Starts the thread that writes to standard output. Called once.
    ///
    /// # Errors
    /// No file descriptor or no thread is available.
    pub fn start() -> io::Result<LogOutput> {
        // Not `std::io::Stdout`, which buffers lines that it could not write and retries them for ever.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let output = LogOutput(Arc::default());
        let shared = output.0.clone();
        let report = |lost| tracing::warn!(lost, "log lines were lost, since standard output did not accept them");
        std::thread::Builder::new().name("log-output".into()).spawn(move || shared.write_to(stdout, report))?;
        Ok(OUTPUT.get_or_init(|| output).clone())
    }
}

/// Waits up to a second until the lines logged so far are written; called before the process ends.
pub fn flush() {
    if let Some(output) = OUTPUT.get() {
        output.0.flush(FLUSH_LIMIT);
    }
}

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.queue(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// Ignores poisoning: even after a panic of another thread the queued lines are whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, line: &[u8]) {
        let mut state = self.state();
        if state.queued.len() + line.len() > MOST_QUEUED_BYTES {
            state.lost_lines += 1;
            return;
        }
        state.queued.extend_from_slice(line);
        state.queued_lines += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.queued.is_empty();
        let _ = self.changed.wait_timeout_while(self.state(), limit, is_busy);
    }

    /// The thread's loop.
    fn write_to(&self, mut output: impl Write, report_lost: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let count = self.take(&mut lines);
            let written = write_all(&mut output, &lines);
            lines.clear();
            let mut state = self.state();
            state.is_writing = false;
            let lost = match written {
                Ok(()) => std::mem::take(&mut state.lost_lines),
                Err(_) => {
                    state.lost_lines += count;
                    0
                }
            };
            drop(state);
            self.changed.notify_all();
            if lost > 0 {
                report_lost(lost); // This logs a line, through the same queue.
            }
        }
    }

    /// Waits for lines and moves them to `lines`, which must be empty. Returns their number.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let is_idle = |state: &mut State| state.queued.is_empty();
        let mut state = self.changed.wait_while(self.state(), is_idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.queued, lines);
        state.is_writing = true;
        std::mem::take(&mut state.queued_lines)
    }
}

fn write_all(output: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(BUSY_OUTPUT_RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output of which each write waits for permission, and then succeeds or fails.
    struct Gate {
        allowed: mpsc::Receiver<bool>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.allowed.recv() {
                Ok(true) => {
                    let _ = self.written.send(bytes.to_vec());
                    Ok(bytes.len())
                }
                Ok(false) => Err(io::ErrorKind::BrokenPipe.into()),
                // The test is over: stop writing.
                Err(_) => loop {
                    std::thread::park();
                },
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct World {
        shared: Arc<Shared>,
        allow: mpsc::Sender<bool>,
        written: mpsc::Receiver<Vec<u8>>,
        reported: mpsc::Receiver<u64>,
    }

    fn world() -> World {
        let shared = Arc::new(Shared::default());
        let ((allow, allowed), (sender, written), (report, reported)) =
            (mpsc::channel(), mpsc::channel(), mpsc::channel());
        let thread = shared.clone();
        std::thread::spawn(move || {
            thread.write_to(Gate { allowed, written: sender }, |lost| _ = report.send(lost));
        });
        World { shared, allow, written, reported }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_said_once_one_can() {
        let world = world();
        world.shared.queue(b"a\n");
        world.allow.send(false).unwrap();
        world.shared.flush(Duration::from_secs(60));
        world.shared.queue(b"b\n");
        world.allow.send(true).unwrap();
        assert_eq!(world.written.recv().unwrap(), b"b\n");
        assert_eq!(world.reported.recv().unwrap(), 1);
        world.shared.queue(b"c\n");
        world.allow.send(true).unwrap();
        assert_eq!(world.written.recv().unwrap(), b"c\n");
        world.shared.flush(Duration::from_secs(60));
        assert!(world.reported.try_recv().is_err());
    }

    #[test]
    fn an_output_that_nobody_reads_holds_up_nobody_and_takes_bounded_memory() {
        let world = world();
        let line = [b'x'; 1000];
        for _ in 0..10_000 {
            world.shared.queue(&line); // It returns although nothing is written.
        }
        let lost = {
            let state = world.shared.state();
            assert!(state.queued.len() <= MOST_QUEUED_BYTES);
            state.lost_lines
        };
        assert!(lost > 7000, "{lost}");
        let mut written = 0;
        while written + lost < 10_000 {
            world.allow.send(true).unwrap();
            written += world.written.recv().unwrap().len() as u64 / 1000;
        }
        assert_eq!(world.reported.recv().unwrap(), lost);
    }
}
