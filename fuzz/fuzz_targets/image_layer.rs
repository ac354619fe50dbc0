//! The libFuzzer entry point of [`cloister_fuzz::image::layer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::image::layer(data));
