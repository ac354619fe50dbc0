//! libFuzzer's entrance to [`cloister_fuzz::wire::chunks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::wire::chunks(data));
