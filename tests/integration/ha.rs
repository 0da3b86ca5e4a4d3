//! Several replicas, crashes, outages and wrong clocks.

mod api_server_trouble;
mod clock;
mod crash;
pub(crate) mod replicas;
mod shutdown;
mod watches;
