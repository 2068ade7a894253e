//! Owns the allocator of the process and when it returns freed memory to the system.
//!
//! This is a separate crate, because the allocator's options can only be set by a foreign function, and the broker's own
//! crate forbids `unsafe`.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, which the bindings do not name. The test would find another number.
const PURGE_DELAY: mi_option_t = 15;
/// How long freed memory is kept.
const PURGE_DELAY_MS: c_long = 0;

/// Lets the allocator return freed pages to the system at once, instead of after a second.
///
/// Large requests that follow each other without a pause would otherwise need memory for several of them: the pages of
/// the last one are still kept when the next one takes its own from another place. To return pages at once costs nothing
/// that can be measured with batches of 256 KiB. The variable `MIMALLOC_PURGE_DELAY` has priority.
///
/// Must be called before the process takes much memory: what was freed before keeps its delay.
pub fn return_freed_memory_at_once() {
    // SAFETY: the function has no preconditions: it ignores an unknown option, and it stores a number.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: the function has no preconditions: it returns 0 for an unknown option.
        let delay_ms = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay_ms(), 1000, "the default that mimalloc documents for this option");
        return_freed_memory_at_once();
        assert_eq!(delay_ms(), PURGE_DELAY_MS);
    }
}
