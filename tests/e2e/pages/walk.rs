//! Runs the commands of a page in their order.

use super::elsewhere;
use super::output::{differences, shows_failure};
use crate::image;
use crate::node::Node;
use pki_cluster::pages::{Block, Page, Step};
use pki_cluster::workspace_dir;
use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command that reads is repeated until it prints what the page shows.
const PATIENCE: Duration = Duration::from_secs(40);
/// A command that takes longer is printed.
const REMARKABLE: Duration = Duration::from_secs(3);
/// Commands that change nothing begin so.
const READS: [&str; 10] = [
    "kubectl get ",
    "kubectl describe ",
    "kubectl events ",
    "kubectl logs ",
    "kubectl wait ",
    "kubectl diff ",
    "kubectl apply --dry-run",
    "kubectl pki explain ",
    "kubectl pki inspect ",
    "kubectl pki status ",
];
/// Namespaces that the pages and their fixtures make.
const NAMESPACES: &str = "app1 app2 team-a team-b edge";

/// The node, and the programs that people have on `PATH`.
pub(crate) struct World<'a> {
    pub(crate) node: &'a Node,
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
    installation: Cell<Installation>,
}

/// State of the installation after the pages so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installation {
    Missing,
    /// The values may differ from those of [`Node::install`].
    Changed,
    Ready,
}

impl<'a> World<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        let folder = node.cluster.dir().join("pages");
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        let (kubectl, helm) = (node.cluster.kubectl(), node.cluster.helm().unwrap());
        for (name, program) in [
            ("kubectl", kubectl.get_program()),
            ("kubectl-pki", env!("CARGO_BIN_EXE_kubectl-pki").as_ref()),
            ("pki-operator", env!("CARGO_BIN_EXE_pki-operator").as_ref()),
        ] {
            symlink(program, programs.join(name)).unwrap();
        }
        let wrapper = programs.join("helm");
        fs::write(&wrapper, helm_for_this_node(Path::new(helm.get_program()))).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let given = kubectl.get_envs().chain(helm.get_envs());
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let mut environment: Vec<_> = given.collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(programs).chain(std::env::split_paths(&path));
        environment.push(("PATH".into(), std::env::join_paths(folders).unwrap()));
        Self {
            node,
            folder,
            environment,
            installation: Cell::new(Installation::Missing),
        }
    }

    /// Removes all that pages have made, and the installation.
    pub(crate) fn empty(&self) {
        self.clean();
        self.node.uninstall();
        self.installation.set(Installation::Missing);
    }

    /// Removes all that pages have made, and brings the installation to two replicas.
    pub(crate) fn cleaned(&self) {
        self.clean();
        if self.installation.get() != Installation::Ready {
            self.install();
        }
    }

    /// Installs, if nothing is installed.
    pub(crate) fn used(&self) {
        if self.installation.get() == Installation::Missing {
            self.install();
        }
    }

    pub(crate) fn install(&self) {
        self.node.install(&[]);
        self.installation.set(Installation::Ready);
    }

    /// A page that needs the usual installation brings it back.
    pub(crate) fn change(&self) {
        self.installation.set(Installation::Changed);
    }

    fn clean(&self) {
        let namespaces: Vec<_> = NAMESPACES.split(' ').collect();
        for namespace in &namespaces {
            let pods = ["delete", "pods", "--all", "--namespace", namespace];
            let now = ["--grace-period=0", "--force"];
            self.node.kubectl(&[&pods[..], &now].concat()).unwrap();
        }
        let delete = ["delete", "namespace", "--ignore-not-found"];
        let delete = [&delete[..], &namespaces].concat();
        self.node.kubectl(&delete).unwrap();
        let own = "--selector=app.kubernetes.io/managed-by!=Helm";
        // Without an installation there are none.
        let _ = self.node.kubectl(&["delete", "pkipolicies", own]);
    }

    /// Whether the script succeeds, and all that it prints.
    fn bash(&self, folder: &Path, script: &str) -> (bool, String) {
        let mut bash = Command::new("timeout");
        bash.args([
            "--kill-after=5",
            "180",
            "bash",
            "-e",
            "-o",
            "pipefail",
            "-c",
        ]);
        bash.arg(format!("exec 2>&1\n{script}")).current_dir(folder);
        let environment = self.environment.iter();
        bash.envs(environment.map(|(name, value)| (name, value)));
        let output = bash.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), printed)
    }
}

/// Helm with the values that this node needs: its image, and no request for local storage.
///
/// After an installation the pages go on when it is ready; after upgrades,
/// [`Walk::wait_for_replicas`] waits once.
fn helm_for_this_node(helm: &Path) -> String {
    let tag = image::TAG;
    format!(
        r#"#!/bin/sh
case $1 in
install | upgrade)
    [ "$1" = upgrade ] || set -- "$@" --wait
    set -- "$@" --timeout=3m --set=image.tag={tag} --set=image.pullPolicy=Never \
        --set=resources.requests.ephemeral-storage=null --set=resources.limits.ephemeral-storage=null
    ;;
esac
exec {} "$@"
"#,
        helm.display()
    )
}

/// A page whose commands are being run.
pub(crate) struct Walk<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) page: Page,
    /// Where the commands run.
    pub(crate) folder: PathBuf,
    /// Values of the page's placeholders, which are words in capitals.
    pub(crate) placeholders: Vec<(&'static str, String)>,
    /// The commands that did not do what the page shows.
    failures: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(world: &'a World<'a>, name: &'static str) -> Self {
        let folder = world.folder.join(name.replace('/', "-"));
        fs::create_dir_all(&folder).unwrap();
        for link in ["charts", "tests"] {
            symlink(workspace_dir().join(link), folder.join(link)).unwrap();
        }
        Self {
            world,
            page: Page::read(name),
            folder,
            placeholders: vec![("REGISTRY", "localhost".into())],
            failures: Vec::new(),
        }
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Saves the next YAML example of the page in a file, as its reader does.
    pub(crate) fn save(&mut self, name: &str) {
        let mut blocks = self.page.blocks.iter_mut();
        let block = blocks.find(|block| !block.is_done && block.language == "yaml");
        let block = block.expect("the page has another example");
        block.is_done = true;
        let content = block.content.clone();
        self.write(name, &content);
    }

    /// Saves the first YAML example of another page that has this part in a file.
    pub(crate) fn save_from(&self, page: &'static str, part: &str, name: &str) {
        let page = Page::read(page);
        let mut blocks = page.blocks.iter();
        let block = blocks.find(|it| it.language == "yaml" && it.content.contains(part));
        self.write(name, &block.expect("it has an example").content);
    }

    /// Saves the `app1.yaml` of the application teams.
    pub(crate) fn save_app1(&self, name: &str) {
        self.save_from("src/guide/application-teams.md", "kind: Pki", name);
    }

    /// Runs a command of a fixture: what it prints.
    pub(crate) fn ask(&self, script: &str) -> String {
        let (succeeds, printed) = self.world.bash(&self.folder, script);
        assert!(succeeds, "{}: {script}\n{printed}", self.page.name);
        printed
    }

    /// Runs commands that bring about what the page presumes.
    pub(crate) fn given(&self, script: &str) {
        self.ask(script);
    }

    /// Waits until a command succeeds.
    pub(crate) fn wait_until(&self, script: &str) {
        let begin = Instant::now();
        loop {
            let (succeeds, printed) = self.world.bash(&self.folder, script);
            if succeeds {
                return;
            }
            let is_late = begin.elapsed() > PATIENCE;
            assert!(!is_late, "{}: {script}\n{printed}", self.page.name);
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Runs the next block with commands.
    pub(crate) fn next(&mut self) {
        self.run_first(|_| true).expect("the page goes on");
    }

    /// Runs the blocks before a section that no call before has run.
    pub(crate) fn until(&mut self, section: &str) {
        let mut blocks = self.page.blocks.iter();
        let found = blocks.find(|block| block.section == section);
        let line = found.expect("the section has a block").line;
        while self.run_first(|block| block.line < line).is_some() {}
    }

    /// Runs the blocks of a section that no call before has run.
    pub(crate) fn section(&mut self, section: &str) {
        let mut is_run = false;
        while self.run_first(|block| block.section == section).is_some() {
            is_run = true;
        }
        assert!(is_run, "{}: {section} has no command", self.page.name);
    }

    /// Runs all that no call before has run.
    pub(crate) fn rest(&mut self) {
        while self.run_first(|_| true).is_some() {}
    }

    /// Waits until replicas with the values of all upgrades so far are ready.
    pub(crate) fn wait_for_replicas(&self) {
        self.given("kubectl rollout status deployment/pki-operator --namespace pki-operator");
    }

    fn run_first(&mut self, is_wanted: impl Fn(&Block) -> bool) -> Option<()> {
        let mut blocks = self.page.blocks.iter_mut();
        let is_next = |block: &&mut Block| !block.is_done && block.has_commands();
        let block = blocks.find(|block| is_next(block) && is_wanted(block))?;
        block.is_done = true;
        for step in block.steps() {
            self.run(&step);
        }
        Some(())
    }

    /// Fails if a command did not do what the page shows.
    pub(crate) fn finish(self) {
        let count = self.failures.len();
        assert_eq!(count, 0, "{}", self.failures.join("\n\n"));
    }

    fn run(&mut self, step: &Step) {
        if elsewhere::entry(&step.command).is_some() {
            return;
        }
        let mut command = step.command.clone();
        for (placeholder, value) in &self.placeholders {
            command = command.replace(placeholder, value);
        }
        if command.starts_with("helm ") || command.contains("delete crds") {
            self.world.change();
        }
        let reads = READS.iter().any(|read| command.starts_with(read));
        let is_to_fail = shows_failure(&step.shown);
        let begin = Instant::now();
        loop {
            let (succeeds, printed) = self.world.bash(&self.folder, &command);
            let mut wrong = differences(&step.shown, &printed);
            if succeeds == is_to_fail {
                let ended = if succeeds { "succeeds" } else { "fails" };
                wrong.push(format!("the command {ended}"));
            }
            if wrong.is_empty() {
                let took = begin.elapsed();
                if took > REMARKABLE {
                    println!("  {:.1} s: {command}", took.as_secs_f32());
                }
                break;
            }
            if !reads || begin.elapsed() > PATIENCE {
                let place = format!("{}:{}", self.page.name, step.line);
                let failure = format!("{place}: {command}\n{wrong:#?}\n{printed}");
                self.failures.push(failure);
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}
