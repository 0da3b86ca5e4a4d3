//! A renewal on request: which annotation asks for one, and when it is served. Pure.
//!
//! The annotation [`RENEW_NOW`] may come back for ever, from a repository that is applied again and
//! again. So the status keeps the value that was served last: each value is served once, and a Pki
//! is renewed on request once in [`MIN_INTERVAL`].

use crate::api::{Pki, PkiStatus, RenewalRequest};
use crate::util::time::whole_second;
use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::fmt::Write as _;

pub use crate::api::annotations::RENEW_NOW;

/// How much time there is at least between two renewals on request.
pub const MIN_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// A longer value is kept as its hash, in bytes.
const LONGEST_VALUE: usize = 64;

/// How a request is handled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalRequestState {
    /// The operator serves it now.
    New,
    /// The one before was served a short time ago.
    Early {
        /// When that was.
        served: Timestamp,
        /// When this one is served.
        next: Timestamp,
    },
    /// The operator has served this very value.
    Served {
        /// When that was.
        at: Timestamp,
    },
}

/// The request that the Pki carries, if it carries one.
pub fn of(pki: &Pki, now: Timestamp) -> Option<RenewalRequestState> {
    let value = pki.annotations().get(RENEW_NOW)?;
    let Some((known, served)) = last(pki) else {
        return Some(RenewalRequestState::New);
    };
    if *known == stored(value) {
        return Some(RenewalRequestState::Served { at: served });
    }
    let next = end_of_interval(served, now);
    Some(next.map_or(RenewalRequestState::New, |next| {
        RenewalRequestState::Early { served, next }
    }))
}

/// When a request that has to wait is served.
pub fn next(pki: &Pki, now: Timestamp) -> Option<Timestamp> {
    match of(pki, now)? {
        RenewalRequestState::Early { next, .. } => Some(next),
        _ => None,
    }
}

/// When a request that is made now is served, if it has to wait.
pub fn end_of_wait(pki: &Pki, now: Timestamp) -> Option<Timestamp> {
    let (_, served) = last(pki)?;
    end_of_interval(served, now)
}

/// If a request that is made now has to wait, a sentence about that without its subject.
pub fn wait(pki: &Pki, now: Timestamp) -> Option<String> {
    let (_, served) = last(pki)?;
    let next = end_of_interval(served, now)?;
    Some(format!(
        "renewed on request at {served}; the next request is served at {next}, {MIN_INTERVAL:#} after the last"
    ))
}

/// Explains to people why a request is not served now.
pub fn message(pki: &Pki, now: Timestamp) -> Option<String> {
    match of(pki, now)? {
        RenewalRequestState::New => None,
        RenewalRequestState::Early { .. } => wait(pki, now),
        RenewalRequestState::Served { at } => Some(format!(
            "the value of annotation {RENEW_NOW} was served at {at}, and each value is served once: to renew again, run `kubectl pki renew` or write another value, such as the time"
        )),
    }
}

/// The status by which a new request is served: the renewal is due, and the value is known from
/// then on.
pub fn served(pki: &Pki, now: Timestamp) -> PkiStatus {
    let mut status = pki.status.clone().unwrap_or_default();
    let time = Time(whole_second(now));
    // Without a certificate there is none to renew; one that is due is renewed in any case.
    if status.renewal_time.as_ref().is_some_and(|at| at.0 > now) {
        status.renewal_time = Some(time.clone());
    }
    let value = pki.annotations().get(RENEW_NOW);
    status.renewal_request = Some(RenewalRequest {
        value: value.map(|value| stored(value)).unwrap_or_default(),
        served_time: Some(time),
        message: None,
    });
    status
}

/// The value that was served last, and when.
fn last(pki: &Pki) -> Option<(&String, Timestamp)> {
    let request = pki.status.as_ref()?.renewal_request.as_ref()?;
    Some((&request.value, request.served_time.as_ref()?.0))
}

/// Until when a request has to wait after one that was served at this time. A time in the future is
/// a clock's error, and keeps nobody waiting.
fn end_of_interval(served: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let next = served.saturating_add(MIN_INTERVAL).ok()?;
    (served <= now && now < next).then_some(next)
}

/// The value as the status keeps it.
fn stored(value: &str) -> String {
    if value.len() <= LONGEST_VALUE {
        return value.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, value.as_bytes());
    let mut text = "sha256:".to_owned();
    for byte in hash.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use crate::util::time::tests::at;
    use serde_json::json;

    /// With a certificate that is renewed in an hour, and this annotation.
    fn pki(value: Option<&str>) -> Pki {
        let mut pki = api::tests::pki(json!({}));
        pki.status = Some(PkiStatus {
            renewal_time: Some(Time(at(3600))),
            ..PkiStatus::default()
        });
        annotate(&mut pki, value);
        pki
    }

    fn annotate(pki: &mut Pki, value: Option<&str>) {
        let annotation = value.map(|value| (RENEW_NOW.to_owned(), value.to_owned()));
        pki.metadata.annotations = Some(annotation.into_iter().collect());
    }

    /// After its request was served.
    fn after(mut pki: Pki, second: i64) -> Pki {
        pki.status = Some(served(&pki, at(second)));
        pki
    }

    #[test]
    fn each_value_is_served_once_and_one_request_in_five_minutes() {
        let long = "x".repeat(1000);
        assert_eq!(of(&pki(None), at(0)), None);
        assert_eq!(of(&pki(Some("")), at(0)), Some(RenewalRequestState::New));
        let early = RenewalRequestState::Early {
            served: at(0),
            next: at(300),
        };
        for (first, second, now, expected) in [
            ("a", "a", 1, RenewalRequestState::Served { at: at(0) }),
            (
                "a",
                "a",
                1_000_000,
                RenewalRequestState::Served { at: at(0) },
            ),
            ("", "", 1_000_000, RenewalRequestState::Served { at: at(0) }),
            (
                &long,
                &long,
                1_000_000,
                RenewalRequestState::Served { at: at(0) },
            ),
            ("a", "b", 1, early),
            ("a", "", 299, early),
            (&long, "b", 299, early),
            ("a", "b", 300, RenewalRequestState::New),
            ("a", "b", -1, RenewalRequestState::New),
        ] {
            let mut pki = after(pki(Some(first)), 0);
            annotate(&mut pki, Some(second));
            assert_eq!(of(&pki, at(now)), Some(expected), "{first} {second} {now}");
            let is_early = expected == early;
            assert_eq!(next(&pki, at(now)), is_early.then_some(at(300)));
        }
    }

    #[test]
    fn a_request_makes_the_renewal_due_and_is_known_from_then_on() {
        let status = served(&pki(Some("a")), at(5));
        assert_eq!(status.renewal_time, Some(Time(at(5))));
        let request = status.renewal_request.unwrap();
        assert_eq!(
            (request.value.as_str(), request.served_time),
            ("a", Some(Time(at(5))))
        );
        let overdue = served(&pki(Some("a")), at(4000));
        assert_eq!(
            overdue.renewal_time,
            Some(Time(at(3600))),
            "it is due already"
        );
        let mut bare = pki(Some("a"));
        bare.status = None;
        let status = served(&bare, at(5));
        assert_eq!(status.renewal_time, None, "there is no certificate yet");
        assert!(status.renewal_request.is_some());
        let long = served(&pki(Some(&"x".repeat(1000))), at(5));
        assert_eq!(long.renewal_request.unwrap().value.len(), 7 + 64);
    }

    #[test]
    fn a_request_that_waits_has_a_reason_and_a_time() {
        let mut pki = after(pki(Some("a")), 0);
        assert_eq!(
            message(&pki, at(60)).unwrap(),
            "the value of annotation box.com/renew-now was served at 2030-03-17T17:46:40Z, and each value is served once: to \
             renew again, run `kubectl pki renew` or write another value, such as the time"
        );
        annotate(&mut pki, Some("b"));
        let early = "renewed on request at 2030-03-17T17:46:40Z; the next request is served at 2030-03-17T17:51:40Z, \
                     5m after the last";
        assert_eq!(message(&pki, at(60)).unwrap(), early);
        assert_eq!(wait(&pki, at(60)).unwrap(), early);
        assert_eq!((message(&pki, at(300)), wait(&pki, at(300))), (None, None));
        let ends = [60, 300].map(|second| end_of_wait(&pki, at(second)));
        assert_eq!(ends, [Some(at(300)), None]);
        annotate(&mut pki, None);
        assert_eq!(message(&pki, at(60)), None);
    }
}
