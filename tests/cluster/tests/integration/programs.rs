//! Scripts and commands that need programs of others look for them before they start anything, and
//! name the commands that install them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pki_cluster::{tools, workspace_dir};

const GO: &str = "go is missing: install Go from https://go.dev/dl";
const RUST: &str = "cargo is missing: install Rust from https://rustup.rs";
const JQ: &str = "jq is missing: apt-get install jq";

#[test]
fn a_script_names_every_program_that_is_missing_and_how_to_get_it() {
    let path = folder_of(&["bash", "dirname", "mktemp", "rm"]);
    for (script, expected) in [
        (
            ".ci/run",
            &["apt-get is missing: run this on Debian, as root", RUST, GO][..],
        ),
        (
            ".ci/chart",
            &[RUST, GO, JQ, "diff is missing: apt-get install diffutils"],
        ),
        (
            "tests/verifiers/install.sh",
            &[GO, "python3 is missing: apt-get install python3-venv"],
        ),
        (
            "tests/verifiers/self-test.sh",
            &[
                JQ,
                "openssl is missing: apt-get install openssl",
                "certtool is missing: apt-get install gnutls-bin",
                "keytool is missing: apt-get install default-jre-headless",
                "/nowhere/verify-go is missing: tests/verifiers/install.sh /nowhere",
                "/nowhere/venv/bin/python is missing: tests/verifiers/install.sh /nowhere",
            ],
        ),
    ] {
        let mut command = Command::new(path.join("bash"));
        command.arg(workspace_dir().join(script)).arg("/nowhere");
        let said = failure(command.env("PATH", &path));
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{script}");
    }
}

#[test]
fn the_demo_names_the_program_that_is_missing() {
    let said = failure(Command::new(env!("CARGO_BIN_EXE_demo")).env("PATH", ""));
    let expected = "The demo failed: openssl is missing, which prints and verifies certificates: apt-get install openssl";
    assert_eq!(said.trim(), expected);
}

/// Standard error of a command that fails and prints nothing else.
fn failure(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{command:?} should fail: {stderr}");
    assert_eq!(String::from_utf8_lossy(&stdout), "", "{command:?}");
    stderr
}

/// A folder that has these programs alone.
fn folder_of(programs: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("few-programs");
    // An earlier run may have left it.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for program in programs {
        let found = tools::find_on_path(program).unwrap();
        symlink(found, folder.join(program)).unwrap();
    }
    folder
}
