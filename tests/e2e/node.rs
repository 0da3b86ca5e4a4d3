//! The node on which the chart is installed, and what the tests ask it.

use crate::image;
use pki_cluster::install::{self, RELEASE};
use pki_cluster::testing::{self, AuditLog, Request, eventually_within};
use pki_cluster::{Cluster, Options, check_node, workspace_dir};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a test waits for what takes some seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The node, for one test at a time.
pub(crate) fn node() -> MutexGuard<'static, Node> {
    static NODE: LazyLock<Mutex<Node>> =
        LazyLock::new(|| Mutex::new(Node::start().expect("the node starts")));
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster with a node that has the image.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
}

impl Node {
    fn start() -> anyhow::Result<Self> {
        check_node()?;
        image::check()?;
        let cluster = Cluster::start(Options {
            node: true,
            ..Options::default()
        })?;
        let dir = cluster.dir().join("image");
        let archive = image::build(&dir)?;
        cluster.import_image(&archive)?;
        let size = fs::metadata(&archive)?.len();
        println!(
            "image: {} MiB (of a build that is not optimized)",
            size >> 20
        );
        // What it was made of is not needed any more, and the tests make a cluster's folder large
        // enough.
        fs::remove_dir_all(&dir)?;
        Ok(Self { cluster })
    }

    /// Brings the installation to two ready replicas with these values besides.
    pub(crate) fn install(&self, values: &[&str]) {
        // This kubelet does not count local storage, as that of a rootless kind does not.
        let storage = [
            "resources.requests.ephemeral-storage=null",
            "resources.limits.ephemeral-storage=null",
        ];
        self.install_chart("charts/pki-operator", &[&storage[..], values].concat());
    }

    /// The same from the chart in this folder or archive.
    pub(crate) fn install_chart(&self, chart: &str, values: &[&str]) {
        let mut helm = self.cluster.helm().unwrap();
        helm.current_dir(workspace_dir());
        helm.args(["upgrade", "--install", RELEASE, chart]);
        helm.args([
            "--namespace",
            RELEASE,
            "--create-namespace",
            "--wait",
            "--timeout=5m",
        ]);
        helm.arg(format!("--set=image.repository={}", image::REPOSITORY));
        helm.arg(format!("--set=image.tag={}", image::TAG));
        helm.args([
            "--set=image.pullPolicy=Never",
            "--set=allowedNames={app1,app2}",
        ]);
        helm.args(values.iter().map(|value| format!("--set={value}")));
        if let Err(error) = install::run(&mut helm) {
            let pods = self.kubectl(&["describe", "pods", "--namespace", RELEASE]);
            panic!("{error:#}\n{}", pods.unwrap_or_default());
        }
    }

    /// Runs the chart's own test: what its pod has printed.
    pub(crate) fn helm_test(&self) -> anyhow::Result<String> {
        let mut helm = self.cluster.helm()?;
        install::run(helm.args(["test", RELEASE, "--namespace", RELEASE, "--logs"]))
    }

    /// Runs kubectl: its standard output, or its standard error as the error.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        testing::kubectl(&self.cluster, arguments)
    }

    /// Runs kubectl with `input` as its standard input.
    pub(crate) fn kubectl_with(&self, input: &str, arguments: &[&str]) -> anyhow::Result<String> {
        testing::kubectl_with(&self.cluster, input, arguments)
    }

    /// What `kubectl get` finds, as JSON.
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let printed = self.kubectl(&[&["get", "--output=json"], arguments].concat());
        serde_json::from_str(&printed.unwrap()).unwrap()
    }

    /// The replicas that run and are not about to end.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        let label = "--selector=app.kubernetes.io/name=pki-operator";
        let pods = self.get(&["pods", "--namespace", RELEASE, label]);
        let pods = pods["items"].as_array().unwrap().iter();
        let lasting = pods.filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        });
        lasting.map(Replica::from).collect()
    }

    /// Waits until there are two replicas, both ready; then the one that leads, and the other.
    pub(crate) fn pair(&self) -> (Replica, Replica) {
        eventually("two replicas are ready, and one leads", || {
            let lease = self.get(&["lease", "pki-operator", "--namespace", RELEASE]);
            let ready: Vec<_> = self
                .replicas()
                .into_iter()
                .filter(|replica| replica.is_ready)
                .collect();
            let leads = |replica: &Replica| lease["spec"]["holderIdentity"] == *replica.name;
            let [a, b] = <[Replica; 2]>::try_from(ready).ok()?;
            match (leads(&a), leads(&b)) {
                (true, false) => Some((a, b)),
                (false, true) => Some((b, a)),
                _ => None,
            }
        })
    }

    /// How often the operator has written each Secret of such a name, as the audit log of the API
    /// server has it.
    pub(crate) fn writes_of_secrets(
        &self,
        is_such: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, usize> {
        let is_such = |request: &Request| {
            let is_of_secret = request.what.ends_with(" secrets");
            let has_changed = request.is_write() && (200..300).contains(&request.code);
            is_of_secret && has_changed && is_such(&request.name)
        };
        let mut writes = BTreeMap::new();
        for request in AuditLog::of(&self.cluster).requests(is_such) {
            *writes.entry(request.name).or_default() += 1;
        }
        writes
    }
}

/// A pod of the operator.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) restarts: u64,
    is_ready: bool,
}

impl From<&Value> for Replica {
    fn from(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &pod["status"]["containerStatuses"][0];
        Self {
            name: text(&pod["metadata"]["name"]),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
            is_ready: container["ready"] == true,
        }
    }
}

impl Replica {
    /// Sends a signal to its process, as `kill` names it.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().expect("the process of the replica runs");
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// The number of its process on this machine, which sees those of the node.
    fn pid(&self) -> Option<String> {
        let name = format!("POD_NAME={}", self.name);
        let processes = fs::read_dir("/proc").unwrap();
        processes.flatten().find_map(|process| {
            let has = |file, text: &[u8]| {
                let content = fs::read(process.path().join(file)).unwrap_or_default();
                content.split(|byte| *byte == 0).any(|part| part == text)
            };
            let found = has("cmdline", b"/pki-operator") && has("environ", name.as_bytes());
            found.then(|| process.file_name().to_string_lossy().into_owned())
        })
    }
}

/// Waits until there is an answer.
pub(crate) fn eventually<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, found)
}
