//! Layer 7: logs, traces and metrics of this process.

pub mod log;
pub mod metrics;
pub mod traces;
