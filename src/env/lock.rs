//! Takes locks, and ends the process if one is poisoned (docs/adr/0005-a-poisoned-lock-ends-the-process.md): then a
//! thread has panicked during a change. Recovery from the log is tested; continuing with a half-changed state is not.

use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::log_output;

/// Locks `mutex`.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|_| end_process())
}

/// Locks `lock` for reading.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|_| end_process())
}

/// Locks `lock` for writing.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|_| end_process())
}

/// While it lives, a panic of its thread ends the process: something waits for this work, and nothing else would
/// notice.
pub struct PanicEndsProcess;

impl Drop for PanicEndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end_process();
        }
    }
}

#[cold]
fn end_process() -> ! {
    tracing::error!("a panic has left a change half done: the process ends, the next start recovers");
    log_output::flush();
    std::process::abort()
}
