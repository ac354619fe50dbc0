//! The libFuzzer entry point of [`cloister_fuzz::hardware::snp_chain_certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::hardware::snp_chain_certificate(data));
