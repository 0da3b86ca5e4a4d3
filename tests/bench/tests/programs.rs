//! The benchmark asks for the program that it needs before it builds or starts anything, and knows
//! the flags that the pages give it.

use pki_cluster::pages::flags_of;
use std::process::Command;

#[test]
fn a_missing_program_is_named_with_the_command_that_installs_it() {
    let bench = env!("CARGO_BIN_EXE_pki-bench");
    let output = Command::new(bench).env("PATH", "").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    let expected = "Error: oha is missing, which asks the webhook: cargo install --locked oha";
    assert_eq!(said.lines().next(), Some(expected));
}

#[test]
fn each_command_of_the_pages_has_flags_that_the_program_knows() {
    let commands = flags_of("cluster-bench");
    assert!(commands.len() >= 2, "{commands:?}");
    for flags in commands {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_pki-bench"));
        // With `--help` the program reads its flags and does nothing else.
        let output = bench.args(&flags).arg("--help").output().unwrap();
        assert!(output.status.success(), "{flags:?}: {output:?}");
    }
}
