//! An expression that is compiled once, with its patterns and its cost.

use super::largest::largest;
use super::pattern::{Pattern, Patterns};
use super::{cost, syntax};
use crate::util::sync::lock;
use cel::common::ast::IdedExpr;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};

/// Maximum number of steps of one rule, for the largest Pki.
pub const RULE_STEPS: u64 = 250_000;

pub(super) type Reading = Result<Compiled, Unreadable>;

/// An expression, ready to be evaluated.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) expression: IdedExpr,
    patterns: Patterns,
    /// Estimated steps for the largest Pki.
    pub(super) steps: u64,
    /// The steps that an estimate for a certain Pki takes itself.
    pub(super) estimate_steps: u64,
}

/// The reason why an expression cannot be evaluated.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// For its author: what to write instead.
    pub(super) fault: String,
    /// For authors of Pkis.
    pub(super) reason: &'static str,
}

impl Compiled {
    /// Compiles an expression, or returns the one in use, which all rule books and reviews share.
    pub(super) fn of(source: &str) -> Arc<Reading> {
        static KNOWN: LazyLock<Mutex<HashMap<String, Weak<Reading>>>> =
            LazyLock::new(Mutex::default);
        /// Number of expressions from which on unused ones are removed.
        const MIN_CLEANUP: usize = 256;
        if source.len() > syntax::MAX_RULE_BYTES {
            return Arc::new(Self::read(source));
        }
        if let Some(known) = lock(&KNOWN).get(source).and_then(Weak::upgrade) {
            return known;
        }
        let reading = Arc::new(Self::read(source));
        let mut known = lock(&KNOWN);
        if known.len() >= MIN_CLEANUP && known.len().is_power_of_two() {
            known.retain(|_, reading| reading.strong_count() > 0);
        }
        known.insert(source.to_owned(), Arc::downgrade(&reading));
        reading
    }

    fn read(source: &str) -> Reading {
        let unreadable = |fault| Unreadable {
            fault,
            reason: "it cannot be read",
        };
        let mut expression = syntax::parse(source).map_err(unreadable)?;
        let mut patterns = Patterns::default();
        patterns.take(&mut expression).map_err(unreadable)?;
        let steps = cost::steps(&expression, largest());
        if steps > RULE_STEPS {
            return Err(Unreadable {
                fault: format!(
                    "it takes up to {steps} steps for the largest Pki: write one that takes at most {RULE_STEPS}, with \
                     shorter lists and without a loop within a loop"
                ),
                reason: "it takes more steps than a rule may",
            });
        }
        Ok(Self {
            estimate_steps: syntax::parts(&expression).len() as u64,
            expression,
            patterns,
            steps,
        })
    }

    /// The variables that hold its patterns.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &(String, Pattern)> {
        self.patterns.iter()
    }
}
