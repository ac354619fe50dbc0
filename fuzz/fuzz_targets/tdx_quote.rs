//! The libFuzzer entry point of [`cloister_fuzz::hardware::tdx_quote`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::hardware::tdx_quote(data));
