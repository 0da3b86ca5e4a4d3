//! A node runs pods, and takes every change of the machine back.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pki_cluster::{Cluster, Options, PAUSE_IMAGE, check_node, remove_abandoned_node};

use crate::command::Home;
use crate::{processes_of, run, wait_until};

#[test]
#[ignore = "needs root and packages: cargo test -p pki-cluster -- --ignored"]
fn a_pod_waits_for_its_secret_and_runs_and_a_stopped_node_leaves_no_trace() {
    let machine = Machine::claim();
    let cluster = Cluster::start(Options {
        node: true,
        ..Options::default()
    })
    .unwrap();
    let dir = cluster.dir().to_owned();
    start_pod(|| cluster.kubectl());

    // The Service of the API server, which is a matter of kube-proxy, leads to it.
    let service = SocketAddr::from(([10, 246, 0, 1], 443));
    TcpStream::connect_timeout(&service, Duration::from_secs(5)).unwrap();
    // The API server reaches kubelet.
    run(cluster.kubectl().args(["logs", "waits"]));

    let second = Cluster::start(Options {
        node: true,
        ..Options::default()
    })
    .err()
    .unwrap()
    .to_string();
    assert!(
        second.contains("another node runs on this machine"),
        "{second}"
    );
    run(cluster
        .kubectl()
        .args(["wait", "--for=condition=Ready", "node/node"]));

    cluster.stop().unwrap();
    assert!(!dir.exists());
    assert_eq!(processes_of(&dir), Vec::<String>::new());
    machine.assert_unchanged();
}

#[test]
#[ignore = "needs root and packages: cargo test -p pki-cluster -- --ignored"]
fn killing_the_owner_of_a_node_leaves_no_trace() {
    let machine = Machine::claim();
    let (home, dir) = node_with_a_pod("killed-node");

    run(Command::new("kill").args(["-s", "KILL", &home.record()["keeper"].to_string()]));
    wait_until("the folder is removed", || !dir.exists());
    wait_until("the last process ends", || processes_of(&dir).is_empty());
    machine.assert_unchanged();
}

/// As when every process of a machine is killed at once: nobody cleans up.
#[test]
#[ignore = "needs root and packages: cargo test -p pki-cluster -- --ignored"]
fn what_an_abandoned_node_left_behind_hinders_nobody() {
    let machine = Machine::claim();
    let (home, dir) = node_with_a_pod("left-node");
    let (watchdog, mut doomed): (Vec<_>, Vec<_>) = processes_of(&dir)
        .into_iter()
        .partition(|line| line.contains("cluster-watchdog"));
    doomed.push(home.record()["keeper"].to_string());
    // The watchdog first: it would clean up.
    let pids = watchdog.iter().chain(&doomed);
    let pids = pids.filter_map(|line| line.split_whitespace().next());
    run(Command::new("kill").args(["-s", "KILL"]).args(pids));
    wait_until("the last process ends", || processes_of(&dir).is_empty());
    assert!(dir.exists() && !cgroups_of_containers().is_empty());

    let cluster = Cluster::start(Options {
        node: true,
        ..Options::default()
    })
    .unwrap();

    run(cluster
        .kubectl()
        .args(["wait", "--for=condition=Ready", "node/node"]));
    cluster.stop().unwrap();
    // Nobody knows any more what they were before.
    machine.restore_settings();
    machine.assert_unchanged();
}

/// A cluster that another process keeps, and its folder.
fn node_with_a_pod(name: &str) -> (Home, PathBuf) {
    let home = Home::new(name);
    run(home.command("up").arg("--node"));
    let (dir, kubectl) = (home.run_dir(), home.record()["kubectl"].clone());
    start_pod(|| {
        let mut kubectl = Command::new(kubectl.as_str().unwrap());
        kubectl
            .env("KUBECONFIG", dir.join("kubeconfig"))
            .env("KUBECACHEDIR", dir.join("kubectl"));
        kubectl
    });
    (home, dir)
}

/// Starts a pod that mounts a Secret: it hangs until the Secret is there.
fn start_pod(kubectl: impl Fn() -> Command) {
    let pod = format!(
        r#"{{"metadata": {{"name": "waits"}}, "spec": {{
            "containers": [{{
                "name": "pause", "image": "{PAUSE_IMAGE}",
                "volumeMounts": [{{"name": "late", "mountPath": "/late"}}]
            }}],
            "volumes": [{{"name": "late", "secret": {{"secretName": "late"}}}}]
        }}}}"#
    );
    let overrides = format!("--overrides={pod}");
    run(kubectl().args(["run", "waits", "--image", PAUSE_IMAGE, &overrides]));
    wait_until("kubelet misses the Secret", || {
        let events = run(kubectl().args(["get", "events"]));
        events.contains(r#"secret "late" not found"#)
    });
    run(kubectl().args(["create", "secret", "generic", "late", "--from-literal=a=b"]));
    run(kubectl().args([
        "wait",
        "--for=condition=Ready",
        "pod/waits",
        "--timeout=60s",
    ]));
}

/// The settings of the kernel that kubelet and the network plugins are seen to change.
const SETTINGS: [&str; 3] = [
    "kernel/panic",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
];

/// What a node changes of the machine, as it was before. There is one node at a time.
struct Machine {
    before: BTreeMap<String, String>,
    _turn: MutexGuard<'static, ()>,
}

impl Machine {
    fn claim() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        check_node().unwrap();
        remove_abandoned_node().unwrap();
        Self {
            before: Self::state(),
            _turn: turn,
        }
    }

    fn assert_unchanged(&self) {
        let after = Self::state();
        for (what, before) in &self.before {
            assert_eq!(&after[what], before, "{what}");
        }
    }

    fn restore_settings(&self) {
        for setting in SETTINGS {
            fs::write(Path::new("/proc/sys").join(setting), &self.before[setting]).unwrap();
        }
    }

    fn state() -> BTreeMap<String, String> {
        let mut state = BTreeMap::from([
            (
                "mounts".to_owned(),
                fs::read_to_string("/proc/mounts").unwrap(),
            ),
            (
                "addresses".to_owned(),
                run(Command::new("ip").args(["-o", "-4", "address"])),
            ),
            (
                "routes".to_owned(),
                run(Command::new("ip").args(["-4", "route"])),
            ),
            (
                "tables".to_owned(),
                run(Command::new("nft").args(["list", "tables"])),
            ),
            (
                "links".to_owned(),
                run(Command::new("ls").arg("/sys/class/net")),
            ),
            ("cgroups".to_owned(), cgroups_of_containers()),
        ]);
        for setting in SETTINGS {
            let value = fs::read_to_string(Path::new("/proc/sys").join(setting)).unwrap();
            state.insert(setting.to_owned(), value);
        }
        let folders = [
            "/run/containerd",
            "/run/netns",
            "/var/lib/cni",
            "/var/lib/kubelet",
        ];
        for folder in folders
            .iter()
            .chain(&["/var/log/containers", "/var/log/pods"])
        {
            state.insert((*folder).to_owned(), Path::new(folder).exists().to_string());
        }
        state
    }
}

fn cgroups_of_containers() -> String {
    run(Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", "*/k8s.io*"]))
}
