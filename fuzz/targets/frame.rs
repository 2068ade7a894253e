#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ottla::protocol::fuzzing::frame(data));
