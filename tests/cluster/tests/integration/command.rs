//! The command line: `cargo cluster up`, `down`, `status` and `env`.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{processes_of, run, wait_until};

#[test]
fn a_cluster_stays_up_until_down() {
    let home = Home::new("up-and-down");
    home.fails("status", "no cluster is up");
    home.fails("env", "cargo cluster up");

    let said = home.succeeds("up");
    assert!(said.contains("export KUBECONFIG="), "{said}");
    assert!(home.succeeds("up").contains("already up"));
    assert!(home.succeeds("status").contains("The cluster is up."));
    let script = format!("{}kubectl get namespaces\nhelm list", home.succeeds("env"));
    assert!(run(Command::new("sh").args(["-ec", &script])).contains("default "));

    let dir = home.run_dir();
    assert!(home.succeeds("down").contains("The cluster is down."));
    assert!(!dir.exists());
    assert_eq!(processes_of(&dir), Vec::<String>::new());
    assert_eq!(home.files(), ["bin", "run", "up.lock"]);
    assert!(home.succeeds("down").contains("No cluster is up."));
}

#[test]
fn killing_the_owner_of_a_cluster_stops_it() {
    let home = Home::new("killed");
    home.succeeds("up");
    let dir = home.run_dir();
    let record = home.record();
    assert!(
        processes_of(&dir)
            .iter()
            .any(|line| line.contains("kube-apiserver"))
    );

    run(Command::new("kill").args(["-s", "KILL", &record["keeper"].to_string()]));
    wait_until("the folder is removed", || !dir.exists());
    wait_until("the last process ends", || processes_of(&dir).is_empty());

    home.fails("status", "no cluster is up");
    assert!(home.succeeds("down").contains("The cluster is down."));
    assert_eq!(home.files(), ["bin", "run", "up.lock"]);
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    let home = Home::new("interrupted");
    let mut up = home.command("up").stdout(Stdio::null()).spawn().unwrap();
    wait_until("the cluster starts", || home.run_dirs().len() == 1);
    let dir = home.run_dirs().remove(0);
    // Not INT: a shell may have started us with that ignored, as it does with what runs in the
    // background.
    run(Command::new("kill").args(["-s", "TERM", &up.id().to_string()]));
    assert_eq!(up.wait().unwrap().signal(), Some(15));

    wait_until("the folder is removed", || !dir.exists());
    wait_until("the last process ends", || processes_of(&dir).is_empty());
    home.fails("status", "no cluster is up");
    home.succeeds("down");
}

#[test]
fn a_missing_program_without_go_says_what_to_install() {
    let home = Home::without_programs("no-go");
    let Output { status, stderr, .. } = home.command("up").env("PATH", "").output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(!status.success());
    assert!(stderr.contains("etcd v3."), "{stderr}");
    assert!(
        stderr.contains("Install Go from https://go.dev/dl"),
        "{stderr}"
    );
    assert!(home.run_dirs().is_empty());
}

#[test]
fn a_node_without_its_packages_says_what_to_install() {
    let home = Home::without_programs("no-packages");
    let output = home
        .command("up")
        .arg("--node")
        .env("PATH", "")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("apt-get install containerd runc nftables iproute2"),
        "{stderr}"
    );
    assert!(home.run_dirs().is_empty());
}

#[test]
fn a_folder_of_assets_is_used_first() {
    let home = Home::without_programs("assets");
    let assets = home.0.join("assets");
    fs::create_dir(&assets).unwrap();
    fs::copy("/bin/false", assets.join("etcd")).unwrap();
    let mut up = home.command("up");
    let output = up
        .env("PATH", "")
        .env("KUBEBUILDER_ASSETS", &assets)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("kube-apiserver v1."),
        "etcd is not what is missing: {stderr}"
    );
}

/// A target folder of its own, in which `cargo cluster` runs; it is taken down at the end.
pub(crate) struct Home(PathBuf);

impl Home {
    /// With the programs that other tests have built already.
    pub(crate) fn new(name: &str) -> Self {
        pki_cluster::prepare(pki_cluster::Options::default()).unwrap();
        pki_cluster::tools::find(pki_cluster::tools::Program::Helm).unwrap();
        let home = Self::without_programs(name);
        let bin = pki_cluster::target_dir().join("bin");
        std::os::unix::fs::symlink(bin, home.0.join("cluster/bin")).unwrap();
        home
    }

    fn without_programs(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What an earlier, interrupted run left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("cluster")).unwrap();
        Self(path)
    }

    pub(crate) fn command(&self, action: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command
            .arg(action)
            .env("CARGO_TARGET_DIR", &self.0)
            .env_remove("KUBEBUILDER_ASSETS");
        command
    }

    fn succeeds(&self, action: &str) -> String {
        run(&mut self.command(action))
    }

    fn fails(&self, action: &str, words: &str) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(action).output().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(
            !status.success() && said.contains(words),
            "{action}: {status}: {said}"
        );
    }

    pub(crate) fn record(&self) -> Value {
        let record = fs::read_to_string(self.0.join("cluster/up.json")).unwrap();
        serde_json::from_str(&record).unwrap()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.record()["dir"].as_str().unwrap().into()
    }

    fn run_dirs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.0.join("cluster/run")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("cluster")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.command("down").output().unwrap();
        fs::remove_dir_all(&self.0).unwrap();
    }
}
