//! The libFuzzer entry point of [`cloister_fuzz::wire::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::wire::messages(data));
