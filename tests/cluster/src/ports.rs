//! Free ports on this machine.

use std::array;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;

/// Ports that are free now. Another program may take one before we do: see `Cluster::start`.
pub(crate) fn free<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    // All are open before the first is closed, so that they differ.
    let open: [_; COUNT] = array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(open) {
        *port = listener
            .and_then(|open| open.local_addr())
            .context("finding a free port")?
            .port();
    }
    Ok(ports)
}
