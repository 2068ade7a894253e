#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ottla::protocol::fuzzing::record_batch(data));
