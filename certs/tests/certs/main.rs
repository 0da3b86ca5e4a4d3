//! The crate from outside: what its users can do with it, and what others think of the result.

// Clippy allows it in test functions, but not in what they share.
#![allow(clippy::unwrap_used)]

mod authority;
mod brought;
mod certify;
mod describe;
mod faults;
mod fixtures;
mod formats;
mod issue;
mod mismatches;
mod openssl;
mod paths;
mod properties;
mod readers;
mod recognize;
