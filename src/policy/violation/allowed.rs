//! A short list of permitted names.

use crate::policy::name_list::MAX_NEAR_EDITS;
use crate::policy::names;
use crate::util::text::{self, printable};
use rapidfuzz::distance::osa;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

/// Allowed names, the nearest first where they are too many to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct AllowedNames {
    names: Vec<String>,
    more: usize,
}

impl AllowedNames {
    /// Maximum number of names in a message.
    pub(in crate::policy) const MAX_LISTED: usize = 10;
    /// Minimum number of bytes that a suggestion has in common at the beginning.
    const MIN_COMMON: usize = 3;

    /// Lists the names nearest to `to`, of `all` allowed ones. `names` has all, unless too many.
    pub(in crate::policy) fn nearest<'a>(
        names: impl Iterator<Item = Cow<'a, str>>,
        to: &str,
        all: usize,
    ) -> Self {
        let mut names: Vec<_> = names.collect();
        let is_whole = names.len() >= all;
        names.sort_unstable();
        names.dedup();
        let all = if is_whole { names.len() } else { all };
        if all > Self::MAX_LISTED {
            names.sort_by_cached_key(|name| (edits(name, to), Reverse(common(name, to))));
            names.truncate(Self::MAX_LISTED);
        }
        let more = all - names.len();
        let names = names.into_iter().map(Cow::into_owned).collect();
        Self { names, more }
    }

    /// The name that was probably meant: one to three edits away, by length; else one that begins
    /// with the other. Another number is no typo: app2 is not suggested for app1.
    pub(super) fn suggestion(&self, name: &str) -> Option<&str> {
        let near = (name.chars().count() / 3).clamp(1, MAX_NEAR_EDITS);
        let is_candidate = |known: &&String| !known.contains('*') && !are_numbered(known, name);
        let exact = || self.names.iter().filter(is_candidate);
        let by_edits = exact()
            .map(|known| (osa::distance(known.chars(), name.chars()), known))
            .filter(|(distance, _)| *distance <= near)
            .min();
        let is_beginning = |known: &&String| {
            common(known, name) >= Self::MIN_COMMON
                && (known.starts_with(name) || name.starts_with(known.as_str()))
        };
        let length = |known: &&String| (common(known, name), Reverse(known.len()));
        let by_beginning = || exact().filter(is_beginning).max_by_key(length);
        let suggestion = by_edits.map(|(_, known)| known).or_else(by_beginning);
        suggestion.map(String::as_str)
    }

    /// Explains why a listed pattern that looks like `name` does not match it.
    pub(super) fn look_alike(&self, name: &str) -> Option<String> {
        let mut patterns = self.names.iter().filter(|known| known.contains(['*', '{']));
        patterns.find_map(|pattern| look_alike(pattern, name))
    }

    /// The names in brackets, or the word `none`.
    pub(super) fn or_none(&self) -> String {
        let is_listed = Some(self).filter(|it| !it.names.is_empty());
        is_listed.map_or_else(|| "none".to_owned(), ToString::to_string)
    }
}

/// Explains why a pattern that looks like `name` does not match it.
fn look_alike(pattern: &str, name: &str) -> Option<String> {
    if names::has_unknown_placeholder(pattern) {
        let why = "has an unknown placeholder, so it matches no name";
        return Some(format!("{} {why}", printable(pattern)));
    }
    let examples = [format!("{name}-x"), format!("x-{name}")];
    let mut examples = examples.iter();
    let example = examples.find(|longer| names::glob_matches(pattern, longer))?;
    Some(format!(
        "{} allows names such as {example}",
        printable(pattern)
    ))
}

/// Whether both names have numbers, and different ones.
fn are_numbered(name: &str, other: &str) -> bool {
    let [one, another] = [name, other].map(text::digits);
    !one.is_empty() && !another.is_empty() && one != another
}

/// Edits between two names, up to one more than near ones have. Longer texts are not compared.
fn edits(name: &str, other: &str) -> usize {
    const MAX_NAME_BYTES: usize = 253;
    if name.len().max(other.len()) > MAX_NAME_BYTES {
        return if name == other { 0 } else { MAX_NEAR_EDITS + 1 };
    }
    let cutoff = osa::Args::default().score_cutoff(MAX_NEAR_EDITS);
    osa::distance_with_args(name.chars(), other.chars(), &cutoff).unwrap_or(MAX_NEAR_EDITS + 1)
}

/// How many bytes two names have in common at the beginning.
fn common(name: &str, other: &str) -> usize {
    let pairs = name.bytes().zip(other.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

impl fmt::Display for AllowedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.names.iter().map(|name| printable(name)).collect();
        write!(f, "[{}]", shown.join(" "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(names: &[&str], to: &str) -> Option<String> {
        let listed = names.iter().map(|name| Cow::Borrowed(*name));
        let names = AllowedNames::nearest(listed, to, names.len());
        names.suggestion(to).map(str::to_owned)
    }

    #[test]
    fn a_suggestion_is_a_few_edits_away_or_begins_alike() {
        for (names, to, meant) in [
            (&["app1", "app2"][..], "appp1", Some("app1")),
            (&["app1"], "ap1p", Some("app1")),
            (&["payments-api", "web"], "payments", Some("payments-api")),
            (&["payments"], "payments-api-v2", Some("payments")),
            (
                &["payments-api", "payments-api-v2"],
                "payments",
                Some("payments-api"),
            ),
            (&["pay", "payments"], "payments-v2-eu", Some("payments")),
            (&["team-a-*"], "team-a", None),
            (&["a"], "abcdef", None),
            (&["web"], "db", None),
            (&["orders"], "payments", None),
            // Other numbers are other services.
            (&["app2"], "app1", None),
            (&["app1"], "app11", None),
            (&["app"], "app1", Some("app")),
        ] {
            assert_eq!(suggested(names, to).as_deref(), meant, "{names:?} {to}");
        }
    }

    #[test]
    fn a_pattern_that_looks_alike_is_explained() {
        for (pattern, name, expected) in [
            (
                "team-a-*",
                "team-a",
                Some("team-a-* allows names such as team-a-x"),
            ),
            ("*-web", "web", Some("*-web allows names such as x-web")),
            (
                "{ns}-web",
                "team-a-web",
                Some("{ns}-web has an unknown placeholder, so it matches no name"),
            ),
            ("team-a-*", "team-b", None),
            ("team-a", "team-a-x", None),
            ("app*", "ap", None),
        ] {
            let listed = AllowedNames::nearest([Cow::Borrowed(pattern)].into_iter(), name, 1);
            assert_eq!(
                listed.look_alike(name).as_deref(),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_long_list_has_the_nearest_names_and_the_number_of_others() {
        let names: Vec<_> = (0..30).map(|n| format!("service-{n:02}")).collect();
        let listed = || names.iter().map(|name| Cow::Borrowed(name.as_str()));
        let nearest = AllowedNames::nearest(listed(), "service-7", 30);
        let shown = nearest.to_string();
        assert!(
            shown.starts_with("[service-07 service-17 service-27 "),
            "{shown}"
        );
        assert!(shown.ends_with("] and 20 more"), "{shown}");
        let twice = AllowedNames::nearest(listed().chain(listed()), "x", 60);
        assert!(twice.to_string().ends_with("] and 20 more"), "{twice}");
        let some = AllowedNames::nearest(listed().take(12), "x", 1000);
        assert!(some.to_string().ends_with("] and 990 more"), "{some}");
    }
}
