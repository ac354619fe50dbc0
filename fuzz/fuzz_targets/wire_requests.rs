//! The libFuzzer entry point of [`cloister_fuzz::wire::requests`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::wire::requests(data));
