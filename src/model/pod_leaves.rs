//! The end of the pod certificates of the CA that signs, promised before anything is signed.
//!
//! No object of the API shows which pod certificates are in use: a request is removed a quarter of
//! an hour after it was made. So the state of the CA has a time after which none of them is valid,
//! and a root is trusted until then. The time is raised in advance, by more than is asked for, so
//! that it is written every few hours and not for every certificate.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio::sync::watch;

/// The least by which a time is raised beyond what is asked for.
const MIN_SLACK: SignedDuration = SignedDuration::from_hours(1);
/// How long a signature waits for a promise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests of the signer of pod certificates, and promises of the controller of the CA.
#[derive(Debug, Default)]
pub struct PodLeaves {
    wanted: watch::Sender<Option<Timestamp>>,
    promised: watch::Sender<Option<Promise>>,
}

/// No pod certificate of this CA ends after this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The fingerprint of the CA.
    pub issuer: String,
    /// The time.
    pub until: Timestamp,
}

impl PodLeaves {
    /// Waits until a certificate of this issuer may end then. Returns whether it may.
    pub async fn promised(&self, issuer: &str, end: Timestamp) -> bool {
        let holds = |promise: &Option<Promise>| {
            let mut promise = promise.iter();
            promise.any(|promise| promise.issuer == issuer && end <= promise.until)
        };
        let mut promised = self.promised.subscribe();
        if holds(&promised.borrow_and_update()) {
            return true;
        }
        self.wanted
            .send_modify(|wanted| *wanted = Some(end).max(*wanted));
        let wait = tokio::time::timeout(PATIENCE, promised.wait_for(holds));
        matches!(wait.await, Ok(Ok(_)))
    }

    /// Returns when a promise is asked for. For one listener.
    pub async fn wanted(&self, seen: &mut watch::Receiver<Option<Timestamp>>) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = seen.changed().await;
    }

    /// The requests from now on.
    pub fn requests(&self) -> watch::Receiver<Option<Timestamp>> {
        self.wanted.subscribe()
    }

    /// The time to promise, if `known` does not do.
    pub fn raised(&self, known: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let wanted = *self.wanted.borrow();
        let wanted = wanted.filter(|wanted| Some(*wanted) > known)?;
        let slack = (wanted.duration_since(now) / 4).max(MIN_SLACK);
        Some(wanted.saturating_add(slack).unwrap_or(Timestamp::MAX))
    }

    /// Promises what is recorded.
    pub fn promise(&self, promise: Option<Promise>) {
        self.promised.send_if_modified(|known| {
            let is_news = *known != promise;
            *known = promise;
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time::tests::at;

    #[test]
    fn a_promise_is_raised_by_more_than_is_asked_for() {
        let leaves = PodLeaves::default();
        assert_eq!(leaves.raised(None, at(0)), None);
        let hour = 3600;
        leaves.wanted.send_replace(Some(at(24 * hour)));
        assert_eq!(leaves.raised(None, at(0)), Some(at(30 * hour)));
        assert_eq!(leaves.raised(Some(at(24 * hour)), at(0)), None);
        leaves.wanted.send_replace(Some(at(hour)));
        assert_eq!(leaves.raised(None, at(0)), Some(at(2 * hour)));
    }

    #[tokio::test]
    async fn a_signature_waits_for_the_promise_of_its_own_issuer() {
        let leaves = PodLeaves::default();
        let promise = |issuer: &str, until| {
            let issuer = issuer.to_owned();
            leaves.promise(Some(Promise { issuer, until }));
        };
        promise("a", at(10));
        assert!(leaves.promised("a", at(10)).await);
        let mut requests = leaves.requests();
        let controller = async {
            leaves.wanted(&mut requests).await;
            promise("a", at(30));
            promise("b", at(20));
        };
        let (is_promised, ()) = tokio::join!(leaves.promised("b", at(20)), controller);
        assert!(is_promised);
    }
}
