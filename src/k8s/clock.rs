//! The clock of this machine, believed only while it agrees with the API server's.
//!
//! Every response of an API server has a `Date` header ([RFC 9110, 6.6.1]). [`ClockLayer`] in the
//! client compares each with the local clock. Between two responses the monotonic clock, which
//! nobody can set, continues the API server's time. So a step of the local clock is noticed at the
//! next reading, before anything is decided by it.
//!
//! A replica whose clock is not trusted issues, rotates and deletes nothing, does not lead, and is
//! not ready.
//!
//! [RFC 9110, 6.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1

use crate::util::sync::lock;
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub use layer::ClockLayer;

mod layer;

/// The largest difference from the API server's clock that is tolerated. Certificates are backdated
/// by five minutes, so the clients of a leader that is ahead by this much take them at once.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(3);
/// Largest lead of a time that another leader wrote over the local clock. Both may be off by
/// [`MAX_CLOCK_SKEW`], and certificates are backdated by more than half of that.
pub const MAX_FUTURE: SignedDuration = MAX_CLOCK_SKEW;
/// Longest round trip of a response by which the clocks are compared.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// Time for which a wrong clock must agree before it is trusted again.
const PROBATION: Duration = Duration::from_secs(10);

/// The clock is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClockFault {
    /// No response of the API server has been read yet.
    #[error("the clock has not been compared with the API server's yet")]
    NotCompared,
    /// The responses have no time.
    #[error(
        "the clock cannot be compared with the API server's: its responses have no Date header; configure the proxy in front of it to pass that header on"
    )]
    NoDate,
    /// The clocks differ.
    #[error(
        "the clock of this machine is {} the API server's, at most 3 minutes are tolerated: set it (with NTP, on the node that runs this pod), or that of the control plane",
        Relation(*.0)
    )]
    Skewed(SignedDuration),
    /// The clocks agree, but did not a moment ago.
    #[error("the clock agrees with the API server's again, and is watched for 10 seconds")]
    OnProbation,
}

/// Both clocks of this machine at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Time of the operating system. Anybody with the permission can set it.
    pub wall: Timestamp,
    /// A clock that only goes on.
    pub monotonic: Instant,
}

impl Reading {
    /// Reads both.
    pub fn take() -> Self {
        Self {
            wall: Timestamp::now(),
            monotonic: Instant::now(),
        }
    }
}

/// The clock of this machine. Shared by everything that decides by the time.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
    is_trusted: watch::Sender<bool>,
}

/// Knowledge of the API server's clock.
#[derive(Debug, Default)]
struct State {
    /// The last response with a readable `Date` header.
    sample: Option<Sample>,
    /// Whether a response had no readable `Date` header.
    lacks_date: bool,
    /// When the clocks last differed by too much.
    differed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    server: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that is not trusted before the first response.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            is_trusted: watch::Sender::new(false),
        })
    }

    /// The time, for decisions. An error while the clock is not trusted.
    pub fn now(&self) -> Result<Timestamp, ClockFault> {
        let reading = Reading::take();
        self.check(reading).map(|()| reading.wall)
    }

    /// The time, for people: the API server's where the local clock is not trusted.
    pub fn display_time(&self) -> Timestamp {
        let reading = Reading::take();
        match self.check(reading) {
            Ok(()) => reading.wall,
            Err(_) => lock(&self.state)
                .server_time(reading)
                .unwrap_or(reading.wall),
        }
    }

    /// The lead of the local clock over the API server's, once it is known.
    pub fn skew(&self) -> Option<SignedDuration> {
        lock(&self.state).skew(Reading::take())
    }

    /// The present fault of the clock.
    pub fn fault(&self) -> Option<ClockFault> {
        self.check(Reading::take()).err()
    }

    /// Returns once the clock is trusted.
    pub async fn trusted(&self) {
        self.wait_for(true).await;
    }

    /// Waits until the clock is trusted, and returns the time.
    pub async fn trusted_now(&self) -> Timestamp {
        loop {
            match self.now() {
                Ok(now) => return now,
                Err(_) => self.trusted().await,
            }
        }
    }

    /// Returns once the clock is no longer trusted.
    pub async fn untrusted(&self) {
        self.wait_for(false).await;
    }

    async fn wait_for(&self, wanted: bool) {
        let mut is_trusted = self.is_trusted.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = is_trusted.wait_for(|is| *is == wanted).await;
    }

    /// Compares with a response that was asked for at `sent` and came at `received`, with this
    /// `Date`.
    fn compare(&self, date: Option<&str>, sent: Instant, received: Reading) {
        lock(&self.state).compare(date, sent, received);
        // Tells those that wait.
        let _ = self.check(received);
    }

    fn check(&self, reading: Reading) -> Result<(), ClockFault> {
        let verdict = lock(&self.state).check(reading);
        let is_trusted = verdict.is_ok();
        self.is_trusted.send_if_modified(|known| {
            let is_news = *known != is_trusted;
            *known = is_trusted;
            is_news
        });
        verdict
    }
}

impl State {
    fn compare(&mut self, date: Option<&str>, sent: Instant, received: Reading) {
        let round_trip = received.monotonic.saturating_duration_since(sent);
        let Some(server) = date.and_then(parse_http_date) else {
            self.lacks_date = true;
            return;
        };
        if round_trip <= MAX_ROUND_TRIP {
            let at = received.monotonic;
            self.sample = Some(Sample { server, at });
        }
    }

    fn check(&mut self, reading: Reading) -> Result<(), ClockFault> {
        let Some(skew) = self.skew(reading) else {
            return Err(if self.lacks_date {
                ClockFault::NoDate
            } else {
                ClockFault::NotCompared
            });
        };
        if skew.abs() > MAX_CLOCK_SKEW {
            self.differed = Some(reading.monotonic);
            return Err(ClockFault::Skewed(skew));
        }
        match self.differed {
            Some(at) if reading.monotonic.saturating_duration_since(at) < PROBATION => {
                Err(ClockFault::OnProbation)
            }
            _ => Ok(()),
        }
    }

    fn skew(&self, reading: Reading) -> Option<SignedDuration> {
        let server = self.server_time(reading)?;
        Some(reading.wall.duration_since(server))
    }

    /// The API server's time, continued by the monotonic clock.
    fn server_time(&self, reading: Reading) -> Option<Timestamp> {
        let Sample { server, at } = self.sample?;
        let since = reading.monotonic.saturating_duration_since(at);
        server.checked_add(since).ok()
    }
}

/// Reads an HTTP date ([RFC 9110, 5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7)),
/// which has whole seconds: the middle of that second.
fn parse_http_date(date: &str) -> Option<Timestamp> {
    let second = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    second.checked_add(SignedDuration::from_millis(500)).ok()
}

/// The difference of two clocks in the largest unit that fits: `100 days ahead of`.
struct Relation(SignedDuration);

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.abs().as_mins();
        let (amount, unit) = match minutes {
            0..120 => (minutes, "minutes"),
            120..2880 => (minutes / 60, "hours"),
            _ => (minutes / 1440, "days"),
        };
        let side = if self.0.is_negative() {
            "behind"
        } else {
            "ahead of"
        };
        write!(f, "{amount} {unit} {side}")
    }
}

#[cfg(test)]
mod tests;
