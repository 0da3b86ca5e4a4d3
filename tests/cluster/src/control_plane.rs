//! The four programs of a control plane and their arguments.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use crate::cluster::Options;
use crate::credentials::Credentials;
use crate::node;
use crate::ports;
use crate::tools::{self, Program};

/// Where Services get their addresses from, and the first of them: the API server's own.
const SERVICES: &str = "10.246.0.0/16";
const API_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 246, 0, 1));

/// Writes are what the tests count, and what the operator asks for beside them; nothing is logged
/// of the reads of others. The API server answers a request after its line is written.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: Metadata
  users: [system:serviceaccount:pki-operator:pki-operator]
- level: None
";

/// Paths of the programs, found or built before anything starts.
pub(crate) struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
    pub(crate) kubectl: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> anyhow::Result<Self> {
        Ok(Self {
            etcd: tools::find(Program::Etcd)?,
            api_server: tools::find(Program::KubeApiserver)?,
            controller_manager: tools::find(Program::KubeControllerManager)?,
            scheduler: tools::find(Program::KubeScheduler)?,
            kubectl: tools::find(Program::Kubectl)?,
        })
    }
}

/// A control plane about to be started: its folder is prepared, its ports are chosen.
pub(crate) struct ControlPlane<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    credentials: Credentials,
    ports: Ports,
    options: Options,
}

struct Ports {
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

impl<'a> ControlPlane<'a> {
    /// Chooses free ports and writes all files into `dir`; `kubeconfig` becomes the
    /// administrator's.
    pub(crate) fn prepare(
        programs: &'a Programs,
        dir: &'a Path,
        kubeconfig: &Path,
        options: Options,
    ) -> anyhow::Result<Self> {
        let credentials = Credentials::create(dir.join("credentials"))?;
        let [api, etcd, etcd_peer] = ports::free()?;
        let ports = Ports {
            api,
            etcd,
            etcd_peer,
        };
        let control_plane = Self {
            programs,
            dir,
            credentials,
            ports,
            options,
        };
        control_plane.write_files(kubeconfig)?;
        Ok(control_plane)
    }

    fn write_files(&self, kubeconfig: &Path) -> anyhow::Result<()> {
        let names = [
            "localhost",
            "kubernetes.default.svc",
            "kubernetes.default",
            "kubernetes",
        ];
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), API_SERVICE];
        if self.options.node {
            addresses.push(IpAddr::V4(node::ADDRESS));
        }
        self.credentials.server("api", &names, &addresses)?;
        self.credentials
            .client("admin", "admin", Some("system:masters"))?;
        self.credentials
            .kubeconfig("admin", &self.url(), kubeconfig)?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            self.write_client(name, &format!("system:{name}"), None)?;
        }
        if self.options.webhook_client {
            self.write_webhook_client()?;
        }
        let policy = self.dir.join("audit-policy.yaml");
        fs::write(&policy, AUDIT_POLICY).with_context(|| format!("writing {}", policy.display()))
    }

    /// Writes how the API server shows a client certificate to webhooks, whichever host they have.
    fn write_webhook_client(&self) -> anyhow::Result<()> {
        self.credentials
            .client("webhook-client", "kube-apiserver", None)?;
        let file = |name| self.credentials.file(name);
        let user = json!({
            "client-certificate": file("webhook-client.crt"),
            "client-key": file("webhook-client.key"),
        });
        let kubeconfig = self.kubeconfig_of("webhook-client");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}],
        });
        let plugin = |name| {
            json!({"name": name, "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
                "kubeConfigFile": &kubeconfig,
            }})
        };
        let plugins = [plugin("ValidatingAdmissionWebhook")];
        let admission = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": plugins,
        });
        for (path, content) in [(&kubeconfig, config), (&self.admission(), admission)] {
            fs::write(path, content.to_string())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn admission(&self) -> PathBuf {
        self.dir.join("admission.yaml")
    }

    /// Writes certificate and kubeconfig of one of the cluster's programs.
    pub(crate) fn write_client(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
    ) -> anyhow::Result<()> {
        self.credentials.client(name, user, group)?;
        self.credentials
            .kubeconfig(name, &self.url(), &self.kubeconfig_of(name))
    }

    pub(crate) fn etcd(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut command = service(&self.programs.etcd);
        command
            .arg("--data-dir")
            .arg(self.dir.join("etcd"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            // The data need not survive a loss of power.
            .args(["--unsafe-no-fsync", "--log-level=warn"]);
        command
    }

    pub(crate) fn api_server(&self) -> Command {
        let file = |name| self.credentials.file(name);
        let mut command = service(&self.programs.api_server);
        command
            .arg(format!("--secure-port={}", self.ports.api))
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.ports.etcd
            ))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            .arg("--authorization-mode=Node,RBAC")
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg("--audit-log-maxsize=4096")
            .arg(flag("--cert-dir", self.dir))
            .arg(flag("--client-ca-file", file("ca.crt")))
            .arg(flag("--tls-cert-file", file("api.crt")))
            .arg(flag("--tls-private-key-file", file("api.key")))
            .arg(flag(
                "--service-account-key-file",
                file("service-accounts.pub"),
            ))
            .arg(flag(
                "--service-account-signing-key-file",
                file("service-accounts.key"),
            ))
            .arg(flag(
                "--audit-policy-file",
                self.dir.join("audit-policy.yaml"),
            ))
            .arg(flag("--audit-log-path", audit_log(self.dir)));
        if self.options.before_1_37 {
            let gates = [
                "ClusterTrustBundleProjection",
                "ClusterTrustBundle",
                "PodCertificateRequest",
            ];
            let gates = gates.map(|gate| format!("{gate}=false"));
            command.arg(format!("--feature-gates={}", gates.join(",")));
        }
        if self.options.webhook_client {
            command.arg(flag("--admission-control-config-file", self.admission()));
        }
        if self.options.node {
            command
                // Pods reach it at the node's address, which is also what its Service leads to.
                .args([
                    "--bind-address=0.0.0.0",
                    &format!("--advertise-address={}", node::ADDRESS),
                ])
                .arg("--kubelet-preferred-address-types=InternalIP")
                .arg(flag("--kubelet-certificate-authority", file("ca.crt")))
                .arg(flag("--kubelet-client-certificate", file("admin.crt")))
                .arg(flag("--kubelet-client-key", file("admin.key")));
        } else {
            command
                .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
                // Its Service leads nowhere: there are no pods that could use it.
                .arg("--endpoint-reconciler-type=none");
        }
        command
    }

    pub(crate) fn controller_manager(&self) -> Command {
        let file = |name| self.credentials.file(name);
        let mut command = service(&self.programs.controller_manager);
        command
            .arg(flag(
                "--kubeconfig",
                self.kubeconfig_of("kube-controller-manager"),
            ))
            .args(["--leader-elect=false", "--secure-port=0"])
            .arg("--use-service-account-credentials")
            // Tests delete thousands of objects, and wait for the garbage collector.
            .args(["--kube-api-qps=300", "--kube-api-burst=600"])
            .arg(flag(
                "--service-account-private-key-file",
                file("service-accounts.key"),
            ))
            .arg(flag("--root-ca-file", file("ca.crt")))
            .arg(flag("--cluster-signing-cert-file", file("ca.crt")))
            .arg(flag("--cluster-signing-key-file", file("ca.key")));
        command
    }

    pub(crate) fn scheduler(&self) -> Command {
        let mut command = service(&self.programs.scheduler);
        command
            .arg(flag("--kubeconfig", self.kubeconfig_of("kube-scheduler")))
            .args(["--leader-elect=false", "--secure-port=0"]);
        command
    }

    /// Where etcd answers its clients.
    pub(crate) fn etcd_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.etcd))
    }

    /// Whether the API server takes connections: cheaper to ask than whether it is ready.
    pub(crate) fn is_listening(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.api)).is_ok()
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    pub(crate) fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }
}

pub(crate) fn audit_log(dir: &Path) -> PathBuf {
    dir.join("audit.log")
}

/// A program of the control plane, which talks to addresses of this machine only.
fn service(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Their heaps are small, and there is memory: collecting garbage takes a third of their time.
    command.env("GOGC", "400");
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env_remove(proxy);
    }
    command
}

fn flag(name: &str, path: impl AsRef<Path>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push("=");
    flag.push(path.as_ref());
    flag
}
