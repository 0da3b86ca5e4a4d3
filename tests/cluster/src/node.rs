//! A node on this machine: containerd, kubelet and kube-proxy, with root's rights.
//!
//! containerd and kubelet live in namespaces of their own (processes and mounts). When the first
//! process there ends, the kernel ends all containers and drops all mounts, so nothing depends on
//! an orderly end. What a node changes outside of them is listed in [`machine`], each change with
//! the command by which the watchdog undoes it.

mod image;
mod machine;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::control_plane::ControlPlane;
use crate::ports;
use crate::tools::{self, Program};
use crate::watchdog::Watchdog;

pub use machine::{check as check_node, remove_abandoned as remove_abandoned_node};

/// The address of the node and of the API server, as pods see them.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);
/// Where pods get their addresses from.
const PODS: &str = "10.247.0.0/24";
const NAME: &str = "node";

/// The longest path of a socket that the kernel takes, in bytes.
const LONGEST_SOCKET: usize = 107;

const IMPORT_LIMIT: Duration = Duration::from_secs(120);

/// An image on the node whose only program waits. It has the name of the usual one, which the node
/// cannot pull, so that manifests which use that run here unchanged.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// Paths of the programs that are found or built; the rest comes with the packages.
pub(crate) struct Programs {
    kubelet: PathBuf,
    kube_proxy: PathBuf,
    pause: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> anyhow::Result<Self> {
        machine::check()?;
        Ok(Self {
            kubelet: tools::find(Program::Kubelet)?,
            kube_proxy: tools::find(Program::KubeProxy)?,
            pause: tools::find(Program::Pause)?,
        })
    }
}

/// A node about to be started, in the folder `node` of its cluster.
pub(crate) struct Node<'a> {
    programs: &'a Programs,
    dir: PathBuf,
    ports: Ports,
}

struct Ports {
    kubelet: u16,
    proxy_health: u16,
    proxy_metrics: u16,
}

impl<'a> Node<'a> {
    /// Prepares the machine, before the API server starts, which listens on the node's address.
    pub(crate) fn prepare(
        programs: &'a Programs,
        cluster_dir: &Path,
        watchdog: &Watchdog,
    ) -> anyhow::Result<Self> {
        let dir = cluster_dir.join("node");
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for socket in sockets(&dir) {
            if socket.as_os_str().len() > LONGEST_SOCKET {
                bail!("{} is too long for the path of a socket", socket.display());
            }
        }
        machine::claim(cluster_dir, watchdog)?;
        let [kubelet, proxy_health, proxy_metrics] = ports::free()?;
        Ok(Self {
            programs,
            dir,
            ports: Ports {
                kubelet,
                proxy_health,
                proxy_metrics,
            },
        })
    }

    /// Starts the programs, and waits until the node takes pods.
    pub(crate) fn start(
        &self,
        cluster: &mut Cluster,
        control_plane: &ControlPlane<'_>,
    ) -> anyhow::Result<()> {
        self.write_files(control_plane)?;
        let first = cluster.start_service("node", self.namespaces())?;
        cluster.wait_for("node", || self.dir.join("ready").exists())?;

        cluster.start_service("containerd", self.containerd(first))?;
        let socket = socket(&self.dir);
        cluster.wait_for("containerd", || UnixStream::connect(&socket).is_ok())?;
        let pause = image::write(&self.programs.pause, &self.dir.join("pause"))?;
        import_image(cluster, &pause)?;

        cluster.start_service("kubelet", self.kubelet(first, control_plane))?;
        cluster.start_service("kube-proxy", self.kube_proxy())?;
        let ready = [
            "wait",
            "--for=condition=Ready",
            "node",
            NAME,
            "--timeout=1s",
        ];
        cluster.wait_for("kubelet", || cluster.can(&ready))
    }

    /// The namespaces: they exist as long as this process does.
    fn namespaces(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation=private",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args([
                "--mount-proc",
                "/bin/sh",
                "-c",
                include_str!("node/init.sh"),
                "cluster-node",
            ])
            .arg(crate::target_dir())
            .arg(&self.dir);
        command
    }

    /// `program` within the namespaces that the process `first` has made.
    fn inside(first: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{first}/ns/mnt"))
            .arg(format!("--pid=/proc/{first}/ns/pid_for_children"))
            .arg("--")
            .arg(program);
        command
    }

    fn containerd(&self, first: u32) -> Command {
        let mut command = Self::inside(first, "containerd");
        command
            .arg("--config")
            .arg(self.dir.join("containerd.toml"));
        command
    }

    fn kubelet(&self, first: u32, control_plane: &ControlPlane<'_>) -> Command {
        let mut command = Self::inside(first, &self.programs.kubelet);
        command
            .arg("--config")
            .arg(self.dir.join("kubelet.json"))
            .arg("--kubeconfig")
            .arg(control_plane.kubeconfig_of("kubelet"))
            .arg("--root-dir")
            .arg(self.dir.join("kubelet"))
            .args(["--hostname-override", NAME])
            .args(["--node-ip", &ADDRESS.to_string()]);
        command
    }

    /// On the machine itself: it works on the network, which has no namespace of its own.
    fn kube_proxy(&self) -> Command {
        let mut command = Command::new(&self.programs.kube_proxy);
        command
            .arg("--config")
            .arg(self.dir.join("kube-proxy.json"));
        command
    }

    fn write_files(&self, control_plane: &ControlPlane<'_>) -> anyhow::Result<()> {
        let user = format!("system:node:{NAME}");
        control_plane.write_client("kubelet", &user, Some("system:nodes"))?;
        control_plane.write_client("kube-proxy", "system:kube-proxy", None)?;
        let credentials = control_plane.credentials();
        credentials.server("kubelet-server", &[], &[IpAddr::V4(ADDRESS)])?;

        let cni = self.dir.join("cni");
        fs::create_dir(&cni).with_context(|| format!("creating {}", cni.display()))?;
        write(
            &cni.join("10-pods.conflist"),
            &self.pod_network().to_string(),
        )?;
        write(
            &self.dir.join("containerd.toml"),
            &self.containerd_config()?,
        )?;
        let kubelet = self.kubelet_config(control_plane).to_string();
        write(&self.dir.join("kubelet.json"), &kubelet)?;
        let proxy = self.proxy_config(control_plane).to_string();
        write(&self.dir.join("kube-proxy.json"), &proxy)
    }

    fn pod_network(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "subnet": PODS,
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": self.dir.join("addresses"),
                },
            }],
        })
    }

    fn containerd_config(&self) -> anyhow::Result<String> {
        let plugins = machine::network_plugins().context("the network plugins are gone")?;
        let dir = &self.dir;
        // TOML takes a string as JSON writes it.
        Ok(format!(
            r#"version = 2
root = {root}
state = {state}

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# A machine may refuse what the programs of a node usually protect themselves with.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
# The only one that needs nothing of the file system below.
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins}
conf_dir = {conf}
"#,
            root = json!(dir.join("containerd")),
            state = json!(dir.join("state")),
            socket = json!(socket(dir)),
            opt = json!(dir.join("opt")),
            plugins = json!(plugins),
            conf = json!(dir.join("cni")),
        ))
    }

    fn kubelet_config(&self, control_plane: &ControlPlane<'_>) -> Value {
        let file = |name| control_plane.credentials().file(name);
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": self.ports.kubelet,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": file("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": file("kubelet-server.crt"),
            "tlsPrivateKeyFile": file("kubelet-server.key"),
            "containerRuntimeEndpoint": format!("unix://{}", socket(&self.dir).display()),
            "resolvConf": self.dir.join("resolv.conf"),
            // Nothing answers there. Without an address, kubelet warns in the events of every pod.
            "clusterDNS": ["10.246.0.10"],
            "clusterDomain": "cluster.local",
            // Where there are iptables, kubelet would leave chains behind that nothing here needs.
            "makeIPTablesUtilChains": false,
            // Cgroups as simple as can be: they differ too much from machine to machine.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "localStorageCapacityIsolation": false,
            // A developer's disk is often nearly full.
            "evictionHard": {
                "memory.available": "1Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
        })
    }

    fn proxy_config(&self, control_plane: &ControlPlane<'_>) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": NAME,
            "clusterCIDR": PODS,
            "clientConnection": {"kubeconfig": control_plane.kubeconfig_of("kube-proxy")},
            "healthzBindAddress": format!("127.0.0.1:{}", self.ports.proxy_health),
            "metricsBindAddress": format!("127.0.0.1:{}", self.ports.proxy_metrics),
            // Leave the kernel's settings alone.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        })
    }
}

/// Gives the images of `tar` to the node of `cluster`.
pub(crate) fn import_image(cluster: &Cluster, tar: &Path) -> anyhow::Result<()> {
    let socket = socket(&cluster.dir().join("node"));
    if !socket.exists() {
        bail!("the cluster was started without a node");
    }
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(socket);
    // The namespace of what Kubernetes uses.
    ctr.args([
        "--namespace=k8s.io",
        "images",
        "import",
        "--snapshotter=native",
    ])
    .arg(tar);
    // As a process of the cluster, because it waits for ever when containerd ends.
    let import = cluster.spawn("import-image", &ctr)?;
    if !import.wait(IMPORT_LIMIT)?.success() {
        bail!(
            "importing {} failed:\n{}",
            tar.display(),
            import.last_lines(5)
        );
    }
    Ok(())
}

/// The longest paths of sockets: containerd appends `.ttrpc` to one, and kubelet gives another a
/// number of ten digits before it renames it.
fn sockets(dir: &Path) -> [PathBuf; 2] {
    let runtime = format!("{}.ttrpc", socket(dir).display());
    let resources = dir.join("kubelet/pod-resources/0123456789");
    [runtime.into(), resources]
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
