//! A running cluster: start, use, stop.

use std::env;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::control_plane::{self, ControlPlane};
use crate::install;
use crate::node::{self, Node};
use crate::process::{Entry, Process};
use crate::tools::{self, Program};
use crate::watchdog::Watchdog;

const START_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// What kind of cluster to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// With a node that runs pods: [`check_node`](crate::check_node) says what that needs.
    pub node: bool,
    /// As Kubernetes before 1.37 is by default: without the types `ClusterTrustBundle` and
    /// `PodCertificateRequest`.
    pub before_1_37: bool,
    /// With an API server that shows every webhook a client certificate, of the CA in
    /// `credentials/ca.crt`.
    pub webhook_client: bool,
}

/// Finds or builds what [`Cluster::start`] needs, so that it is quick and silent later.
pub fn prepare(options: Options) -> anyhow::Result<()> {
    Programs::find(options).map(drop)
}

/// Everything that is found or built, before anything starts.
struct Programs {
    control_plane: control_plane::Programs,
    node: Option<node::Programs>,
    options: Options,
}

impl Programs {
    fn find(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            options,
            // First, because it fails at once where a node is impossible.
            node: options.node.then(node::Programs::find).transpose()?,
            control_plane: control_plane::Programs::find()?,
        })
    }
}

/// A control plane that runs until this value is dropped or this process ends, in whatever way.
pub struct Cluster {
    dir: PathBuf,
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    kubectl: PathBuf,
    watchdog: Arc<Watchdog>,
    /// Everything that was spawned, so that its end can be noticed.
    spawned: Mutex<Vec<Arc<Entry>>>,
    /// The programs of the cluster itself, in the order of their start.
    services: Mutex<Vec<Service>>,
    /// Where etcd answers, unless the cluster is not ours.
    etcd: Option<SocketAddr>,
}

/// A program of the cluster, and how it is started.
struct Service {
    command: Command,
    process: Process,
}

impl Cluster {
    /// Starts a control plane and waits until it works: about four seconds, once the programs are
    /// built.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let programs = Programs::find(options)?;
        let mut attempt = 1;
        loop {
            match Self::try_start(&programs) {
                Err(error) if error.is::<PortTaken>() && attempt < 3 => attempt += 1,
                result => return result,
            }
        }
    }

    /// An existing cluster, as a context of the user's kubeconfig: only what is spawned is ours.
    pub fn existing(context: &str) -> anyhow::Result<Self> {
        let kubectl = tools::find(Program::Kubectl)?;
        let cluster = Self::new(create_run_dir()?, kubectl)?;
        let mut view = Command::new(&cluster.kubectl);
        view.args([
            "config",
            "view",
            "--minify",
            "--flatten",
            "--raw",
            "--context",
            context,
        ]);
        fs::write(&cluster.kubeconfig, install::run(&mut view)?)
            .context("writing the kubeconfig")?;
        Ok(cluster)
    }

    fn try_start(programs: &Programs) -> anyhow::Result<Self> {
        let dir = create_run_dir()?;
        let mut cluster = Self::new(dir.clone(), programs.control_plane.kubectl.clone())?;
        let watchdog = Arc::clone(&cluster.watchdog);
        let node = programs
            .node
            .as_ref()
            .map(|node| Node::prepare(node, &dir, &watchdog));
        let node = node.transpose()?;
        let control_plane = ControlPlane::prepare(
            &programs.control_plane,
            &dir,
            &cluster.kubeconfig,
            programs.options,
        )?;

        cluster.etcd = Some(control_plane.etcd_address());
        cluster.start_service("etcd", control_plane.etcd())?;
        cluster.start_service("kube-apiserver", control_plane.api_server())?;
        cluster.wait_for("kube-apiserver", || control_plane.is_listening())?;
        cluster.wait_for("kube-apiserver", || {
            cluster.can(&["get", "--raw", "/readyz"])
        })?;
        cluster.start_service(
            "kube-controller-manager",
            control_plane.controller_manager(),
        )?;
        cluster.start_service("kube-scheduler", control_plane.scheduler())?;
        let account = ["get", "serviceaccount", "default", "--namespace=default"];
        cluster.wait_for("kube-controller-manager", || cluster.can(&account))?;
        if let Some(node) = node {
            node.start(&mut cluster, &control_plane)?;
        }
        Ok(cluster)
    }

    /// A cluster in which nothing runs yet but its watchdog.
    fn new(dir: PathBuf, kubectl: PathBuf) -> anyhow::Result<Self> {
        let logs = dir.join("logs");
        fs::create_dir(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let watchdog = Arc::new(Watchdog::start(&dir, &logs.join("watchdog.log"))?);
        Ok(Self {
            kubeconfig: dir.join("kubeconfig"),
            audit_log: control_plane::audit_log(&dir),
            dir,
            kubectl,
            watchdog,
            spawned: Mutex::default(),
            services: Mutex::default(),
            etcd: None,
        })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's audit log: a line of JSON for every write, and for every read of the
    /// operator, moments after it is answered.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The folder of this cluster, below `target/cluster/run`; it is gone when the cluster is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `kubectl`, as the administrator, of the version of the API server.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            // Nothing is read from or written to the user's ~/.kube.
            .env("KUBECACHEDIR", self.dir.join("kubectl"))
            .env("KUBERC", "off");
        command
    }

    /// `helm`, as the administrator; it is found or built at the first call.
    pub fn helm(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(tools::find(Program::Helm)?);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"HELM_") {
                command.env_remove(name);
            }
        }
        let home = self.dir.join("helm");
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.dir.join("kubectl"))
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"));
        Ok(command)
    }

    /// Starts a process that ends with this cluster at the latest; its output goes to
    /// `logs/NAME.log`, or `NAME-2.log` and so on when the name was used before.
    ///
    /// Program, arguments, environment and directory are those of `command`, its standard input is
    /// empty. (`Command::env_clear` has no effect: remove variables one by one.)
    pub fn spawn(&self, name: &str, command: &Command) -> anyhow::Result<Process> {
        let logs = self.dir.join("logs");
        let process = Process::start(name, command, &logs, &self.watchdog)?;
        let mut spawned = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        spawned.push(Arc::clone(process.entry()));
        Ok(process)
    }

    /// Gives the node the images of `tar`, as `docker save` or `buildah push docker-archive:`
    /// write it.
    pub fn import_image(&self, tar: &Path) -> anyhow::Result<()> {
        node::import_image(self, tar)
    }

    /// Stops everything and removes [`dir`](Self::dir), as dropping does, and says what went wrong.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> anyhow::Result<()> {
        self.watchdog.release();
        let status = loop {
            self.collect_ended();
            if let Some(status) = self.watchdog.try_wait()? {
                break status;
            }
            thread::sleep(POLL);
        };
        self.collect_ended();
        if !status.success() {
            bail!(
                "the cluster did not stop cleanly: see {}/logs/watchdog.log",
                self.dir.display()
            );
        }
        Ok(())
    }

    fn collect_ended(&self) {
        for entry in self
            .spawned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            // The watchdog reports a process that does not end.
            let _ = entry.try_wait();
        }
    }

    /// Returns its process id.
    pub(crate) fn start_service(&self, name: &str, command: Command) -> anyhow::Result<u32> {
        let process = self.spawn(name, &command)?;
        let pid = process.pid();
        self.services().push(Service { command, process });
        Ok(pid)
    }

    /// Kills a program of the cluster, such as `etcd` or `kube-apiserver`, and starts it again as
    /// it was: with its data, on its ports. Returns when the API server works.
    pub fn restart_service(&self, name: &str) -> anyhow::Result<()> {
        let mut services = self.services();
        let mut all = services.iter_mut();
        let service = all.find(|service| service.process.name() == name);
        let service = service.with_context(|| format!("there is no service {name}"))?;
        service.process.kill()?;
        service.process = self.spawn(name, &service.command)?;
        drop(services);
        self.wait_for(name, || self.can(&["get", "--raw", "/readyz"]))
    }

    /// Has etcd forget all but what is there now. That alone does not make a watch from an earlier
    /// version end with 410 Gone: the API server keeps what it has seen since it was
    /// [restarted](Self::restart_service). Returns the version, as `resourceVersion` has it.
    pub fn compact(&self) -> anyhow::Result<i64> {
        let etcd = self.etcd.context("the etcd of an existing cluster")?;
        // A key that nobody has; every answer tells the revision.
        let answer = post(etcd, "/v3/kv/range", r#"{"key": "AA=="}"#)?;
        let (_, rest) = answer
            .split_once(r#""revision":""#)
            .with_context(|| format!("no revision in {answer}"))?;
        let digits = rest.split('"').next().unwrap_or_default();
        let revision = digits.parse().context("reading the revision")?;
        let request = format!(r#"{{"revision": "{revision}", "physical": true}}"#);
        post(etcd, "/v3/kv/compaction", &request)?;
        Ok(revision)
    }

    /// Waits until `works`, and says what the log of `service` says when it does not.
    pub(crate) fn wait_for(&self, service: &str, works: impl Fn() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !works() {
            self.check_services()?;
            if begin.elapsed() > START_LIMIT {
                let log = self.last_lines_of(service);
                bail!("{service} does not work after {START_LIMIT:?}; its log ends with\n{log}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The end of a service's log.
    fn last_lines_of(&self, name: &str) -> String {
        let services = self.services();
        let mut all = services.iter();
        let service = all.find(|service| service.process.name() == name);
        let log = service.map(|service| service.process.last_lines(20));
        log.unwrap_or_default()
    }

    fn services(&self) -> MutexGuard<'_, Vec<Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_services(&self) -> anyhow::Result<()> {
        for Service { process, .. } in self.services().iter() {
            let Some(status) = process.try_wait()? else {
                continue;
            };
            if process.log().contains("address already in use") {
                bail!(PortTaken(process.name().to_owned()));
            }
            let log = process.last_lines(20);
            bail!(
                "{} ended ({status}); its log ends with\n{log}",
                process.name()
            );
        }
        Ok(())
    }

    pub(crate) fn can(&self, kubectl: &[&str]) -> bool {
        let mut command = self.kubectl();
        command.args(kubectl).arg("--request-timeout=5s");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

/// The body of the answer to a POST of JSON by plain HTTP.
fn post(server: SocketAddr, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("POST {path}: {answer}");
    }
    Ok(body.to_owned())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            eprintln!("{error:#}");
        }
    }
}

/// Somebody took a port between our choice and our use of it.
#[derive(Debug)]
struct PortTaken(String);

impl fmt::Display for PortTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: another program took its port, three times in a row",
            self.0
        )
    }
}

impl std::error::Error for PortTaken {}

/// A new folder that only this user can read: it holds private keys.
fn create_run_dir() -> anyhow::Result<PathBuf> {
    let parent = crate::target_dir().join("run");
    let create = || -> io::Result<PathBuf> {
        fs::create_dir_all(&parent)?;
        let parent = parent.canonicalize()?;
        for number in 1.. {
            let dir = parent.join(format!("{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => return result.map(|()| dir),
            }
        }
        unreachable!("the numbers do not end")
    };
    create().with_context(|| format!("creating a folder in {}", parent.display()))
}
