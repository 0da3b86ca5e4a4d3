//! The guide for teams, and advice on each reason, taken from its pages.

use std::borrow::Cow;

#[doc = include_str!("application-teams.md")]
pub mod application_teams {}

#[doc = include_str!("platform-teams.md")]
pub mod platform_teams {}

#[doc = include_str!("gitops.md")]
pub mod gitops {}

#[doc = include_str!("backup-and-restore.md")]
pub mod backup_and_restore {}

#[doc = include_str!("a-key-was-stolen.md")]
pub mod a_key_was_stolen {}

#[doc = include_str!("security-teams.md")]
pub mod security_teams {}

#[doc = include_str!("performance.md")]
pub mod performance {}

const APPLICATION_TEAMS: &str = include_str!("application-teams.md");
const HEADER: &str = "| reason | cause | what to do |";

/// Advice on a reason of Events and conditions, as plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The cause of the reason.
    pub cause: Cow<'static, str>,
    /// The remedy.
    pub remedy: Cow<'static, str>,
}

/// The guide's advice on this reason, if the operator ever gives it.
pub fn advice(reason: &str) -> Option<Advice> {
    let [_, cause, remedy] = rows().find(|[names, ..]| quoted(names).any(|name| name == reason))?;
    Some(Advice {
        cause: plain(cause),
        remedy: plain(remedy),
    })
}

/// Every reason that the guide explains.
pub fn reasons() -> impl Iterator<Item = &'static str> {
    rows().flat_map(|[names, ..]| quoted(names))
}

/// The cells of the table of reasons, row by row.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    let lines = APPLICATION_TEAMS.lines().skip_while(|line| *line != HEADER);
    let table = lines.skip(2).map_while(|line| line.strip_prefix('|'));
    table.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim);
        Some([cells.next()?, cells.next()?, cells.next()?])
    })
}

/// The texts between backticks.
fn quoted(markdown: &'static str) -> impl Iterator<Item = &'static str> {
    markdown.split('`').skip(1).step_by(2)
}

/// Without backticks, and with the text of links in their place.
fn plain(markdown: &'static str) -> Cow<'static, str> {
    if !markdown.contains(['`', '[']) {
        return markdown.into();
    }
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text += before;
        (text, rest) = match link.split_once("](").zip(link.split_once(')')) {
            Some(((label, _), (_, after))) => (text + label, after),
            None => (text + "[", link),
        };
    }
    (text + rest).replace('`', "").into()
}

#[cfg(test)]
mod tests;
