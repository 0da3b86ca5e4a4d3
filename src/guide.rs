//! Why something is as it is, and what to do about it, by the reason that conditions and Events give.

use std::borrow::Cow;

/// What to know about a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What has happened.
    pub cause: Cow<'static, str>,
    /// What to do about it.
    pub remedy: Cow<'static, str>,
}

const TABLE: &str = include_str!("../README.md");

/// What the table of reasons says of this one.
pub fn advice(reason: &str) -> Option<Advice> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| `"));
    let mut cells = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim));
    let quoted = format!("`{reason}`");
    cells.find_map(|mut cells| {
        let mut reasons = cells.next()?.split(", ");
        let (cause, remedy) = (plain(cells.next()?), plain(cells.next()?));
        reasons
            .any(|known| known == quoted)
            .then_some(Advice { cause, remedy })
    })
}

fn plain(markdown: &str) -> Cow<'static, str> {
    markdown.replace('`', "").into()
}
