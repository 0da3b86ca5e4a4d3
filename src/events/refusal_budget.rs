//! Limits of the Events about refusals, in a namespace and in all. Anybody who may create Pkis can
//! have thousands refused, which must neither flood a namespace nor delay other Events.

use crate::util::rate_limit::{Bucket, Limit};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Enough for five refused Pkis with a hundred pods each at once.
const PER_NAMESPACE: Limit = Limit {
    burst: 500,
    period: Duration::from_secs(1),
};
/// The share of refusals in the 1,000 Events at once, and 200 a second, that are sent in all.
const IN_ALL: Limit = Limit {
    burst: 500,
    period: Duration::from_millis(20),
};
/// The number of namespaces that are remembered before full buckets are forgotten.
const MAX_NAMESPACES: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct RefusalBudget {
    in_all: Bucket,
    by_namespace: HashMap<String, Bucket>,
}

impl RefusalBudget {
    /// Takes one Event for this namespace, or returns when there will be one.
    pub(super) fn take(&mut self, namespace: &str, now: Instant) -> Result<(), Instant> {
        self.in_all.take(IN_ALL, now)?;
        let bucket = self.by_namespace.entry(namespace.to_owned()).or_default();
        let taken = bucket.take(PER_NAMESPACE, now);
        if taken.is_err() {
            self.in_all.give_back(IN_ALL);
        }
        if self.by_namespace.len() > MAX_NAMESPACES {
            self.by_namespace.retain(|_, bucket| !bucket.is_full(now));
        }
        taken
    }

    /// Returns an Event that was taken and not sent.
    pub(super) fn give_back(&mut self, namespace: &str) {
        self.in_all.give_back(IN_ALL);
        if let Some(bucket) = self.by_namespace.get_mut(namespace) {
            bucket.give_back(PER_NAMESPACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_share_and_all_have_theirs() {
        let (mut budget, now) = (RefusalBudget::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        for _ in 0..PER_NAMESPACE.burst {
            budget.take("crowd", now).unwrap();
        }
        assert_eq!(budget.take("crowd", now), Err(now + IN_ALL.period));
        // After ten seconds that of all is full again, and that of the namespace has ten.
        for _ in 0..10 {
            budget.take("crowd", later(10)).unwrap();
        }
        assert_eq!(budget.take("crowd", later(10)), Err(later(11)));
        assert_eq!(budget.take("other", later(10)), Ok(()));
        budget.give_back("crowd");
        assert_eq!(budget.take("crowd", later(10)), Ok(()));
        // A namespace that is refused one takes nothing from the others.
        let others = (0..600).filter(|_| {
            let _ = budget.take("crowd", later(10));
            budget.take("third", later(10)).is_ok()
        });
        assert_eq!(others.count(), 500 - 11);
    }

    #[test]
    fn namespaces_in_which_nothing_is_refused_any_more_are_forgotten() {
        let (mut budget, now) = (RefusalBudget::default(), Instant::now());
        let mut at = now;
        for number in 0..=MAX_NAMESPACES {
            at += Duration::from_secs(2);
            budget.take(&number.to_string(), at).unwrap();
        }
        assert_eq!(budget.by_namespace.len(), 1);
    }
}
