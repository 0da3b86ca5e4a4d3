//! The user's own cluster. The demo changes no object of the user, and leaves none of its own.

use std::net::{IpAddr, UdpSocket};
use std::process::exit;
use std::thread;

use anyhow::{Context as _, bail};
use pki_cluster::{Cluster, install};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::shell::Shell;

/// Objects that the demo creates, and removes at its end. The content of the namespaces goes with
/// them.
const OURS: [&str; 6] = [
    "namespace/app1",
    "namespace/app2",
    "namespace/app3",
    "namespace/pki-operator",
    "crd/pkis.box.com",
    "crd/pkipolicies.box.com",
];

/// Refuses a cluster that already has an object with a name that the demo uses.
pub(crate) fn check_is_free(cluster: &Cluster) -> anyhow::Result<()> {
    let mut get = cluster.kubectl();
    get.args(["get", "--ignore-not-found", "--output=name"])
        .args(OURS);
    let found = install::run(&mut get)?;
    if !found.is_empty() {
        bail!(
            "the demo would create these objects, but the cluster has them already:\n{found}choose another context"
        );
    }
    Ok(())
}

/// Whether pods run there.
pub(crate) fn has_node(cluster: &Cluster) -> anyhow::Result<bool> {
    let nodes = install::run(cluster.kubectl().args(["get", "nodes", "--output=name"]))?;
    Ok(!nodes.is_empty())
}

/// The address that this machine uses towards the API server, by which that can most likely reach
/// it.
pub(crate) fn own_address(cluster: &Cluster) -> anyhow::Result<IpAddr> {
    let mut view = cluster.kubectl();
    view.args([
        "config",
        "view",
        "--minify",
        "--output=jsonpath={.clusters[0].cluster.server}",
    ]);
    let server = install::run(&mut view)?;
    let authority = server.trim().split('/').nth(2).unwrap_or_default();
    let with_port = if authority
        .rsplit(']')
        .next()
        .unwrap_or_default()
        .contains(':')
    {
        authority.to_owned()
    } else {
        format!("{authority}:443")
    };
    // Connecting a UDP socket sends nothing: it only chooses the route.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(&with_port)?;
        socket.local_addr()
    });
    let own = own.with_context(|| {
        format!("finding this machine's address towards {server}; name it with --host")
    })?;
    Ok(own.ip())
}

/// On Ctrl-C, cleans up before the process ends.
pub(crate) fn leave_on_interrupt(cluster: &Cluster) -> anyhow::Result<()> {
    let shell = Shell::of(cluster)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            clean_up(&shell);
            exit(128 + signal);
        }
    });
    Ok(())
}

/// Removes what the demo made.
pub(crate) fn clean_up(shell: &Shell) {
    println!("\n\n=== Removing the demo's objects from your cluster.");
    let ours = OURS.join(" ");
    for command in [
        "helm uninstall pki-operator -n pki-operator --ignore-not-found",
        &format!("kubectl delete --ignore-not-found {ours}"),
    ] {
        if let Err(error) = shell.must(command) {
            eprintln!("{error:#}");
        }
    }
}
