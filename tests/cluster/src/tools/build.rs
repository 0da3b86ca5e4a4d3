//! Builds one program with Go, once, and says how far it is.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IsTerminal as _, stderr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Program, find_on_path};

/// Builds `program` as the file `binary`, unless another process has done so in the meantime.
pub(super) fn build(program: Program, binary: &Path) -> anyhow::Result<()> {
    let dir = binary.parent().expect("a binary is in a folder");
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let _lock = lock(program, &dir.join("lock"))?;
    if binary.exists() {
        return Ok(());
    }
    let unfinished = binary.with_extension("unfinished");
    run_go(program, &unfinished)?;
    // An interrupted build never leaves a binary behind: it appears here, complete.
    fs::rename(&unfinished, binary).with_context(|| format!("creating {}", binary.display()))
}

/// One build at a time: two would only take each other's processors. Ends with the returned file.
fn lock(program: Program, path: &Path) -> anyhow::Result<File> {
    let context = || format!("locking {}", path.display());
    let lock = File::create(path).with_context(context)?;
    if lock.try_lock().is_err() {
        eprintln!("{program}: waiting for another process that builds");
        lock.lock().with_context(context)?;
    }
    Ok(lock)
}

fn run_go(program: Program, output: &Path) -> anyhow::Result<()> {
    let module = program.module();
    let Some(go) = find_on_path("go") else {
        bail!(go_is_missing(program))
    };
    eprintln!(
        "{program} is not on PATH in this version: building it from source, once, into {}",
        output.parent().unwrap_or(output).display()
    );
    let begin = Instant::now();
    let mut go = Command::new(go);
    if program == Program::Pause {
        // It runs in an image without a C library.
        go.env("CGO_ENABLED", "0");
    }
    let mut go = go
        .args([
            "build",
            "-v",
            "-trimpath",
            "-ldflags",
            &module.linker_flags(),
            "-o",
        ])
        .arg(output)
        .arg(program.package())
        .current_dir(module.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting go")?;
    let said = follow(program, &lines_of(&mut go), begin);
    let status = go.wait().context("waiting for go")?;
    if !status.success() {
        let tail = said[said.len().saturating_sub(20)..].join("\n  ");
        bail!("building {program} failed: go ended with {status}:\n  {tail}");
    }
    eprintln!("built {program} in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn go_is_missing(program: Program) -> String {
    format!(
        "{program} is needed. It is built from source once, which takes Go {} or newer, \
         and there is no `go` on PATH.\n\
         Install Go from https://go.dev/dl (macOS: `brew install go`), \
         or put {program} itself on PATH.",
        program.module().go_version(),
    )
}

/// The lines of Go's standard error, read by a thread so that the clock can tick between them.
fn lines_of(go: &mut Child) -> Receiver<String> {
    let output = go.stderr.take().expect("standard error is piped");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Shows progress until Go has said everything, and returns what it said.
///
/// With `-v`, Go names each package as it compiles it. On a terminal one line counts them;
/// elsewhere a line appears every half minute, so that a log shows the build is alive.
fn follow(program: Program, lines: &Receiver<String>, begin: Instant) -> Vec<String> {
    let terminal = stderr().is_terminal();
    let pause = Duration::from_secs(if terminal { 1 } else { 30 });
    let mut next = begin + pause;
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Timeout) => {
                next += pause;
                let progress = format!(
                    "  {program}: {} s, {} packages compiled",
                    begin.elapsed().as_secs(),
                    said.iter().filter(|line| !line.starts_with("go: ")).count()
                );
                if terminal {
                    eprint!("\r{progress}\x1b[K");
                } else {
                    eprintln!("{progress}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    said
}
