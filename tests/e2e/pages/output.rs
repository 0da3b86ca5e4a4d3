//! Whether a command prints the output that a page shows.

/// Placeholder for a text that differs between runs.
const VARIES: &str = "#";
/// Parts of an output that only a command which fails prints.
const FAILURES: [&str; 5] = [
    " is invalid: ",
    " denied the request",
    ": error: ",
    ": FAILED ",
    "Error from server",
];

/// Whether the page shows a command that fails.
pub(crate) fn shows_failure(shown: &[String]) -> bool {
    let mut lines = shown.iter();
    lines.any(|line| FAILURES.iter().any(|failure| line.contains(failure)))
}

/// Each difference between the output that a page shows and the real one. `...` stands for any
/// lines, or for the end of a line. Without one, the page has to show every line.
pub(crate) fn differences(shown: &[String], real: &str) -> Vec<String> {
    let real: Vec<_> = lines(real.lines());
    let is_cut = shown.iter().any(|line| line.ends_with("..."));
    let shown = lines(
        shown
            .iter()
            .map(String::as_str)
            .filter(|line| *line != "..."),
    );
    let mut found = Vec::new();
    for line in &shown {
        let is_printed = match line.strip_suffix("...") {
            Some(begin) => real.iter().any(|it| it.starts_with(begin)),
            None => real.contains(line),
        };
        if !is_printed {
            found.push(format!("shown, and not printed: {line}"));
        }
    }
    if !is_cut && !shown.is_empty() {
        let more = real.iter().filter(|line| !shown.contains(line));
        found.extend(more.map(|line| format!("printed, and not shown: {line}")));
    }
    found
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lines = lines.map(normalized);
    lines.filter(|line| !line.is_empty()).collect()
}

/// The line without what differs between runs: ages, times, hashes, names of pods, counts of
/// Events, widths of columns.
fn normalized(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().map(word).collect();
    let mut line = words.join(" ");
    while let Some((before, rest)) = line.split_once(" (x")
        && let Some((count, after)) = rest.split_once(')')
        && count.contains(" over ")
    {
        line = format!("{before}{after}");
    }
    line
}

fn word(word: &str) -> String {
    let word = without_times(word);
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let parts: Vec<&str> = word.split(|c| !is_part(c)).collect();
    let separators: Vec<&str> = word.matches(|c| !is_part(c)).collect();
    let mut result = String::new();
    for (index, part) in parts.iter().enumerate() {
        let varies = is_hash(part)
            || is_age(part)
            || is_of_pod(&parts, &separators, index)
            || is_of_uid(&parts, index);
        result += if varies { VARIES } else { part };
        result += separators.get(index).copied().unwrap_or_default();
    }
    result
}

/// The word without its times, such as `2026-12-01T10:45:05Z`.
fn without_times(word: &str) -> String {
    const FORM: &str = "0000-00-00T00:00:00";
    let mut result = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let is_time = rest.len() >= FORM.len()
            && FORM
                .bytes()
                .zip(rest.bytes())
                .all(|(form, byte)| match form {
                    b'0' => byte.is_ascii_digit(),
                    other => byte == other,
                });
        if is_time {
            rest = rest[FORM.len()..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            rest = rest.strip_prefix('Z').unwrap_or(rest);
            result += VARIES;
        } else {
            result.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    result
}

fn is_hash(part: &str) -> bool {
    let has_digit = part.bytes().any(|byte| byte.is_ascii_digit());
    part.len() >= 12 && has_digit && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `3s`, `2m30s`, `89d`; not hours, in which specs state their durations.
fn is_age(part: &str) -> bool {
    let units = part.trim_start_matches(|c: char| c.is_ascii_digit());
    units.len() < part.len()
        && part.ends_with(['s', 'm', 'd'])
        && part
            .chars()
            .all(|c| c.is_ascii_digit() || "smhd".contains(c))
}

/// Whether it is one of the two suffixes of a Deployment's pod, as in `app1-59ff8856db-x5vpz`.
fn is_of_pod(parts: &[&str], separators: &[&str], index: usize) -> bool {
    let is_pair = |hash: usize| {
        let (Some(first), Some(second)) = (parts.get(hash), parts.get(hash + 1)) else {
            return false;
        };
        let has_digit = first.bytes().any(|byte| byte.is_ascii_digit());
        // A number of 32 bits, each digit as one character.
        (5..=10).contains(&first.len())
            && has_digit
            && second.len() == 5
            && hash > 0
            && separators[hash - 1] == "-"
            && separators[hash] == "-"
    };
    is_pair(index) || index > 0 && is_pair(index - 1)
}

fn is_of_uid(parts: &[&str], index: usize) -> bool {
    let is_uid = |first: usize| {
        let parts = parts.get(first..first + 5).unwrap_or_default();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        lengths == [8, 4, 4, 4, 12]
    };
    (index.saturating_sub(4)..=index).any(is_uid)
}

#[test]
fn what_differs_between_runs_is_not_compared() {
    let shown = [
        "Warning  FailedMount  1s (x3 over 3s)  kubelet  for app1-59ff8856db-x5vpz at 2026-12-01T10:45:05Z",
        "uid d1fc1f56-1c39-4d1a-a3cf-0ff6b1a9c6f4 serial=744beb1840e3c519, 720h",
    ];
    let shown = shown.map(str::to_owned);
    let real = "Warning FailedMount 12s kubelet for app1-6d4cf56db6-7k2wd at 2027-01-02T03:04:05.678Z\n\n\
                uid 00000000-0000-4000-8000-000000000000 serial=0123456789abcdef, 720h\n";
    assert_eq!(differences(&shown, real), [""; 0]);
    let other = real.replace("720h", "48h");
    assert_eq!(differences(&shown, &other).len(), 2);
}

#[test]
fn a_cut_is_shown() {
    let shown = |lines: &[&str]| {
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    let real = "one\ntwo words\nthree\n";
    assert_eq!(differences(&shown(&["one", "three"]), real).len(), 1);
    assert_eq!(differences(&shown(&["one", "...", "three"]), real).len(), 0);
    assert_eq!(differences(&shown(&["two w..."]), real).len(), 0);
    assert_eq!(differences(&shown(&["four", "..."]), real).len(), 1);
    assert_eq!(differences(&[], real).len(), 0);
}
