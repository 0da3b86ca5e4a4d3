//! What the operator says of its configuration before it starts: flags, environment and file.

use crate::harness::operator_binary;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Status and standard error of an operator that cannot start.
fn refused(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> (Option<i32>, String) {
    let mut operator = Command::new(operator_binary());
    operator.arg("run").args(flags).env_clear();
    operator.envs(environment.iter().copied());
    // Nothing here reaches a cluster, whatever is taken for right.
    let output = operator
        .env("KUBECONFIG", "/nowhere")
        .env("PKI_OPERATOR_CONFIG", file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Two listeners of one port are refused with both addresses, which shows what was taken for each.
#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let file = file(
        "precedence.yaml",
        "listen: 127.0.0.1:1001\nmetrics-listen: 127.0.0.1:1001\n",
    );
    let file = file.to_str().unwrap();
    let of_environment = [
        ("PKI_OPERATOR_LISTEN", "127.0.0.1:1002"),
        ("PKI_OPERATOR_METRICS_LISTEN", "127.0.0.1:1002"),
    ];
    let flags = [
        "--listen=127.0.0.1:1003",
        "--metrics-listen",
        "127.0.0.1:1003",
    ];
    for (environment, flags, taken) in [
        (&[][..], &[][..], "127.0.0.1:1001"),
        (&of_environment, &[], "127.0.0.1:1002"),
        (&of_environment, &flags, "127.0.0.1:1003"),
        (&[], &flags, "127.0.0.1:1003"),
    ] {
        let (status, said) = refused(file, environment, flags);
        let expected = format!("error: --listen ({taken}) and --metrics-listen ({taken}) have one");
        assert_eq!(status, Some(2), "{said}");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn all_that_is_wrong_in_the_file_is_told_line_by_line() {
    let file = file("wrong.yaml", "drain-secnds: 5\nca: buy\n");
    let file = file.to_str().unwrap();
    let (status, said) = refused(file, &[], &[]);
    assert_eq!(status, Some(2));
    let expected = format!(
        "error: {file}:1:1: unknown key \"drain-secnds\"; did you mean \"drain-seconds\"?\n\
         error: {file}:2:5: ca: \"buy\" cannot be used: write one of: make, bring\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn a_wrong_value_is_told_by_the_variable_or_the_flag_that_has_it() {
    let environment = [("PKI_OPERATOR_DRAIN_SECONDS", "soon")];
    let empty = file("empty.yaml", "");
    let empty = empty.to_str().unwrap();
    let (status, said) = refused(empty, &environment, &[]);
    assert_eq!(status, Some(2));
    let expected = "error: environment variable PKI_OPERATOR_DRAIN_SECONDS: \"soon\" cannot be used: write a whole number of \
         seconds from 0 to 86400\n";
    assert_eq!(said, expected);

    let (status, said) = refused(empty, &environment, &["--drain-seconds=later"]);
    assert_eq!(status, Some(2));
    let expected = "error: invalid value 'later' for '--drain-seconds <DRAIN_SECONDS>': write a whole number of seconds";
    assert!(said.starts_with(expected), "{said}");
}
