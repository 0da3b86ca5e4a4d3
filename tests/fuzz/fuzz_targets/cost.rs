//! Runs [`targets::cost`] on what the fuzzer makes up.
#![no_main]

#[path = "../targets.rs"]
pub mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::cost(data));
