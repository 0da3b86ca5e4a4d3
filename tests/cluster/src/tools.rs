//! The programs a cluster is made of: found on this machine, or built once with Go.
//!
//! Their versions are those of the Go modules in `tools/`. A program is taken from
//! `KUBEBUILDER_ASSETS` (whatever its version: that is the user's choice), from an earlier build,
//! or from `PATH` when it is exactly of our version. Otherwise it is built.

mod build;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest;

/// A program that can be found or built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Program {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubectl,
    Kubelet,
    KubeProxy,
    Helm,
    Pause,
}

/// Finds `program`, and builds it where it is missing, with progress on standard error.
pub fn find(program: Program) -> anyhow::Result<PathBuf> {
    let cached = program.module().bin_dir().join(program.name());
    if let Some(path) = program.in_assets() {
        Ok(path)
    } else if cached.exists() {
        Ok(cached)
    } else if let Some(path) = program.on_path() {
        Ok(path)
    } else {
        build::build(program, &cached)?;
        Ok(cached)
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Helm => "helm",
            Self::Pause => "pause",
        }
    }

    /// The Go package of its `main`.
    fn package(self) -> String {
        match self {
            Self::Etcd | Self::Pause => self.module().path.to_owned(),
            Self::Helm => format!("{}/cmd/helm", HELM.path),
            _ => format!("{}/cmd/{}", KUBERNETES.path, self.name()),
        }
    }

    fn module(self) -> &'static Module {
        match self {
            Self::Etcd => &ETCD,
            Self::Helm => &HELM,
            Self::Pause => &PAUSE,
            _ => &KUBERNETES,
        }
    }

    /// The folder that envtest's users have: etcd, kube-apiserver and kubectl.
    fn in_assets(self) -> Option<PathBuf> {
        let assets = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS")?);
        let offered = matches!(self, Self::Etcd | Self::KubeApiserver | Self::Kubectl);
        Some(assets.join(self.name())).filter(|path| offered && path.exists())
    }

    fn on_path(self) -> Option<PathBuf> {
        let version = self.module().version()?;
        let path = find_on_path(self.name())?;
        let arguments: &[&str] = match self {
            Self::Kubectl => &["version", "--client"],
            Self::Helm => &["version"],
            _ => &["--version"],
        };
        let output = Command::new(&path).args(arguments).output().ok()?;
        let output = String::from_utf8_lossy(&output.stdout);
        names_version(&output, version).then_some(path)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.module()
            .version()
            .map_or(Ok(()), |version| write!(f, " {version}"))
    }
}

/// A Go module of `tools/`: a `go.mod` that pins one upstream module, whose programs we build.
struct Module {
    dir: &'static str,
    /// The upstream module; for our own program, the module itself.
    path: &'static str,
    /// Its variables that hold the version.
    stamps: &'static [&'static str],
    go_mod: &'static str,
    /// What the programs are made from: the sums of upstream modules, or the source of our own.
    sources: &'static str,
}

macro_rules! module {
    ($name:literal, $path:literal, $sources:literal, $stamps:expr) => {
        Module {
            dir: concat!(env!("CARGO_MANIFEST_DIR"), "/tools/", $name),
            path: $path,
            stamps: &$stamps,
            go_mod: include_str!(concat!("../tools/", $name, "/go.mod")),
            sources: include_str!(concat!("../tools/", $name, "/", $sources)),
        }
    };
}

const ETCD: Module = module!("etcd", "go.etcd.io/etcd/server/v3", "go.sum", []);
const KUBERNETES: Module = module!(
    "kubernetes",
    "k8s.io/kubernetes",
    "go.sum",
    [
        "k8s.io/component-base/version.gitVersion",
        "k8s.io/client-go/pkg/version.gitVersion"
    ]
);
const HELM: Module = module!(
    "helm",
    "helm.sh/helm/v4",
    "go.sum",
    ["helm.sh/helm/v4/internal/version.version"]
);
const PAUSE: Module = module!(
    "pause",
    "pki-operator/tests/cluster/tools/pause",
    "main.go",
    []
);

impl Module {
    /// The pinned version of the upstream module, as in `v1.37.2`; none for our own.
    fn version(&self) -> Option<&'static str> {
        let mut words = self.go_mod.lines().map(str::split_whitespace);
        words.find_map(|mut words| words.find(|word| *word == self.path).and(words.next()))
    }

    /// The version of Go that the module asks for.
    fn go_version(&self) -> &'static str {
        let mut lines = self.go_mod.lines();
        lines
            .find_map(|line| line.strip_prefix("go "))
            .expect("the go.mod names its Go version")
    }

    /// Where its programs are kept: a change of any dependency is another folder.
    fn bin_dir(&self) -> PathBuf {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(self.go_mod.as_bytes());
        hash.update(self.sources.as_bytes());
        let key = hash.finish();
        let key = key
            .as_ref()
            .first_chunk()
            .expect("a SHA-256 has more than eight bytes");
        crate::target_dir()
            .join("bin")
            .join(format!("{:016x}", u64::from_be_bytes(*key)))
    }

    /// The version goes into the programs at link time, as the makefiles upstream do it.
    fn linker_flags(&self) -> String {
        let version = self.version().unwrap_or_default();
        let stamps = self
            .stamps
            .iter()
            .map(|variable| format!(" -X {variable}={version}"));
        format!("-s -w{}", stamps.collect::<String>())
    }
}

/// The first file of that name in the folders of `PATH`.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether one of the words of `output` is `version`, with or without its `v`.
fn names_version(output: &str, version: &str) -> bool {
    let number = version.trim_start_matches('v');
    output
        .split(|c: char| !c.is_ascii_alphanumeric() && !".+-".contains(c))
        .any(|word| word.strip_prefix('v').unwrap_or(word) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_matches_as_a_whole_word_only() {
        assert!(names_version("Kubernetes v1.37.2\n", "v1.37.2"));
        assert!(names_version(
            "etcd Version: 3.7.3\nGit SHA: none",
            "v3.7.3"
        ));
        assert!(names_version(
            r#"version.BuildInfo{Version:"v4.3.1", GitCommit:""}"#,
            "v4.3.1"
        ));
        assert!(!names_version("Client Version: v1.37.20", "v1.37.2"));
        assert!(!names_version("Kubernetes v1.37.2+vendor1", "v1.37.2"));
        assert!(!names_version("Kubernetes v1.37.2-rc.1", "v1.37.2"));
    }

    #[test]
    fn every_upstream_program_has_a_version() {
        for module in [&ETCD, &KUBERNETES, &HELM] {
            assert!(
                module.version().unwrap().starts_with('v'),
                "{}",
                module.path
            );
            assert!(module.go_version().starts_with("1."), "{}", module.path);
        }
    }
}
