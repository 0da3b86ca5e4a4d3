//! The guides, and advice on each reason, taken from the page about errors.

use std::borrow::Cow;

#[doc = include_str!("index.md")]
pub mod index {}

#[doc = include_str!("application-teams.md")]
pub mod application_teams {}

#[doc = include_str!("pod-certificates.md")]
pub mod pod_certificates {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("common-refusals.md")]
pub mod common_refusals {}

#[doc = include_str!("kubectl-pki.md")]
pub mod kubectl_pki {}

#[doc = include_str!("gitops.md")]
pub mod gitops {}

#[doc = include_str!("install.md")]
pub mod install {}

#[doc = include_str!("policies.md")]
pub mod policies {}

#[doc = include_str!("policies-by-example.md")]
pub mod policies_by_example {}

#[doc = include_str!("policy-rules.md")]
pub mod policy_rules {}

#[doc = include_str!("ca.md")]
pub mod ca {}

#[doc = include_str!("trust.md")]
pub mod trust {}

#[doc = include_str!("network.md")]
pub mod network {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("monitoring.md")]
pub mod monitoring {}

#[doc = include_str!("backup-and-restore.md")]
pub mod backup_and_restore {}

#[doc = include_str!("a-key-was-stolen.md")]
pub mod a_key_was_stolen {}

#[doc = include_str!("security-teams.md")]
pub mod security_teams {}

#[doc = include_str!("performance.md")]
pub mod performance {}

const ERRORS: &str = include_str!("errors.md");
const HEADER: &str = "| reason | cause | what to do |";

/// Advice on a reason of Events and conditions, as plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The cause of the reason.
    pub cause: Cow<'static, str>,
    /// The remedy.
    pub remedy: Cow<'static, str>,
}

/// The advice on this reason; `None` for a reason that the operator never gives.
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
    let lines = ERRORS.lines().skip_while(|line| *line != HEADER);
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
