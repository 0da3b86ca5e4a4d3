//! The benchmark asks for the program that it needs before it builds or starts anything.

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
