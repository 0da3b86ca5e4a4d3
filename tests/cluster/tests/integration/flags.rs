//! The programs know the flags that the pages give them.

use crate::run;
use pki_cluster::pages::flags_of;
use std::process::Command;

#[test]
fn each_command_of_the_pages_has_flags_that_the_program_knows() {
    for (alias, program) in [
        ("demo", env!("CARGO_BIN_EXE_demo")),
        ("cluster", env!("CARGO_BIN_EXE_cluster")),
    ] {
        let commands = flags_of(alias);
        assert!(commands.len() >= 2, "{alias}: {commands:?}");
        for flags in commands {
            // With `--help` the program reads its flags and does nothing else.
            run(Command::new(program).args(&flags).arg("--help"));
        }
    }
}
