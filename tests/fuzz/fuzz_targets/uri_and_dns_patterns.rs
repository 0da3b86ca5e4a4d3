//! Runs [`targets::uri_and_dns_patterns`] on what the fuzzer makes up.
#![no_main]

#[path = "../targets.rs"]
pub mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::uri_and_dns_patterns(data));
