//! What a process takes up, as Linux tells it (proc(5)).

use std::fs;

use anyhow::Context as _;

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, which is part of what Linux promises to programs.
const TICKS: f64 = 100.0;

/// What a process has taken up so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Memory that is resident at this moment, in MiB.
    pub resident: f64,
    /// The most that was resident at any moment, in MiB.
    pub most_resident: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let mebibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes =
                line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            let kibibytes = kibibytes.with_context(|| format!("/proc/{pid}/status has no {name}"));
            kibibytes.map(|kibibytes| kibibytes / 1024.0)
        };
        Ok(Self {
            cpu: seconds(&stat).with_context(|| format!("/proc/{pid}/stat has no times"))?,
            resident: mebibytes("VmRSS:")?,
            most_resident: mebibytes("VmHWM:")?,
        })
    }
}

/// Fields 14 and 15, for the program and for the kernel on its behalf. The second one, in
/// parentheses, may have blanks.
fn seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks
        .map(|ticks| ticks.parse::<f64>().ok())
        .collect::<Option<Vec<_>>>()?;
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_taken_up_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 0.0 && usage.most_resident >= usage.resident);
    }

    #[test]
    fn a_name_with_blanks_and_parentheses_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 100 0 0 0 250 50 0 0 20 0";
        assert_eq!(seconds(stat), Some(3.0));
        assert_eq!(seconds("7 (a) S 1"), None);
    }
}
