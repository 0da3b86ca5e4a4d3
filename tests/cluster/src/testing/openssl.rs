//! OpenSSL's command line.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The standard output of `openssl` for this input; empty if it fails.
///
/// Panics if there is no `openssl`.
pub fn openssl(arguments: &[&str], input: &str) -> String {
    let mut openssl = Command::new("openssl");
    let pipes = openssl
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = pipes.stderr(Stdio::null()).spawn().expect("openssl runs");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // OpenSSL may stop reading before the end.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The serial number of a certificate in PEM, in hexadecimal.
pub fn serial_of(certificate: &str) -> String {
    let printed = openssl(&["x509", "-noout", "-serial"], certificate);
    printed
        .strip_prefix("serial=")
        .unwrap_or_default()
        .to_owned()
}
