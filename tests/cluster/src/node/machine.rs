//! What a node needs of the machine, and what it changes there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::{ADDRESS, PODS};
use crate::tools::find_on_path;
use crate::watchdog::Watchdog;

/// The programs we call, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// Where distributions put network plugins.
const PLUGIN_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

/// The settings of the kernel that kubelet and the network plugins change.
const SETTINGS: [&str; 7] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Removes the cgroups of containers whose processes are gone; those in use stay, with an error.
const REMOVE_CGROUPS: &str =
    "find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} +";

/// Whether a node can run on this machine; the error says what is missing, and how to get it.
pub fn check() -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("a node needs Linux");
    }
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if network_plugins().is_none() {
        packages.push("containernetworking-plugins");
    }
    packages.dedup();
    if !packages.is_empty() {
        bail!(
            "a node needs more programs: apt-get install {}",
            packages.join(" ")
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a node needs root: it mounts file systems and sets up the network of pods");
    }
    Ok(())
}

/// The folder with the network plugins.
pub(super) fn network_plugins() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| {
        ["ptp", "host-local", "loopback"]
            .iter()
            .all(|plugin| folder.join(plugin).exists())
    };
    PLUGIN_FOLDERS.iter().map(PathBuf::from).find(complete)
}

/// Makes this machine the node of the cluster in `dir`. Each change is announced to the watchdog
/// before it is made, so each command to undo it also works when there is nothing to undo.
pub(super) fn claim(dir: &Path, watchdog: &Watchdog) -> anyhow::Result<()> {
    remove_abandoned()?;
    // First, because it is refused when another cluster has made its changes here.
    claim_address(dir, watchdog)?;
    for family in ["ip", "ip6"] {
        let table = format!("table {family} kube-proxy");
        watchdog.undo(&format!(
            "! nft list {table} >/dev/null 2>&1 || nft delete {table}"
        ))?;
    }
    for setting in SETTINGS {
        let path = Path::new("/proc/sys").join(setting);
        let value =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        watchdog.undo(&format!("echo {} >{}", value.trim(), path.display()))?;
    }
    watchdog.undo(REMOVE_CGROUPS)?;
    // The kernel takes the network of a pod down a moment after its last process.
    let routes = format!("ip route show root {PODS}");
    let gone = format!("[ -z \"$({routes})\" ]");
    watchdog.undo(&format!(
        "for i in $(seq 100); do {gone} && exit; sleep 0.05; done; exit 1"
    ))
}

/// Removes what a node left behind whose processes were all killed at once, its watchdog among
/// them: the address, the links and cgroups of its pods, and the table of kube-proxy. The settings
/// of the kernel stay as the node left them, because nobody knows what they were.
///
/// # Errors
///
/// When a node runs on this machine, of ours or of others, and when a command fails.
pub fn remove_abandoned() -> anyhow::Result<()> {
    let addresses = output("ip", &["-o", "-4", "address", "show", "dev", "lo"])?;
    let mut ids = addresses
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("lo:"));
    // The watchdog of a cluster has the cluster's folder among its arguments.
    if ids.any(|id| command_lines().any(|line| line.contains(id))) {
        bail!("another node runs on this machine: the address {ADDRESS} is on the interface lo");
    }
    for family in ["ip", "ip6"] {
        let table = ["table", family, "kube-proxy"];
        if !succeeds("nft", &[&["list"], &table[..]].concat()) {
            continue;
        }
        if command_lines().any(|line| program(&line) == "kube-proxy") {
            bail!("another node runs on this machine: its kube-proxy has a table in nftables");
        }
        output("nft", &[&["delete"], &table[..]].concat())?;
    }
    if addresses.contains(" lo:") {
        output("ip", &["address", "flush", "dev", "lo", "label", "lo:*"])?;
        for route in output("ip", &["route", "show", "root", PODS])?.lines() {
            if let Some(link) = word_after(route, "dev") {
                output("ip", &["link", "delete", link])?;
            }
        }
    }
    // The containers of others may run.
    succeeds("sh", &["-c", REMOVE_CGROUPS]);
    Ok(())
}

fn word_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_whitespace().skip_while(|w| *w != word).nth(1)
}

/// The command lines of all processes, their arguments separated by zero bytes.
fn command_lines() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
}

fn program(command_line: &str) -> &str {
    let path = command_line.split('\0').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// Puts the node's address on the loopback interface. There can be one such address, so this is
/// also what keeps a second node away; the label tells ours from that of another cluster.
fn claim_address(dir: &Path, watchdog: &Watchdog) -> anyhow::Result<()> {
    let id = dir.file_name().expect("a cluster has a folder").display();
    let label = format!("lo:{id}");
    watchdog.undo(&format!("ip address flush dev lo label {label}"))?;
    let address = format!("{ADDRESS}/32");
    if !succeeds(
        "ip",
        &["address", "add", &address, "dev", "lo", "label", &label],
    ) {
        bail!("another node runs on this machine: the address {ADDRESS} is on the interface lo");
    }
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
