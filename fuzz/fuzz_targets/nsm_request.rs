//! The libFuzzer entry point of [`cloister_fuzz::nsm::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::nsm::request(data));
