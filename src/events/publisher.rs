//! Sends [`Notice`]s as `events.k8s.io/v1` Events.
//!
//! The name of an Event is a hash of what it says and to whom, so whoever says it again, after a restart or from
//! another replica, finds the Event that is there and continues its series: `(x3 over 15m)` instead of three lines.
//!
//! The queue is bounded and nobody waits for it: what does not fit is counted and dropped, since a Pki with a fault is
//! looked at again. A slow Events API therefore never delays an issuance.

use super::{Kind, Notice};
use crate::metrics::Metrics;
use crate::reconcile::write;
use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Who says it: `From` in `kubectl describe`.
const COMPONENT: &str = "pki-operator";
/// Notices that wait to be sent, at most.
const QUEUE: usize = 10_000;
/// How often one notice is tried while the API server is busy or away.
const ATTEMPTS: u32 = 4;
/// How long one notice may keep the others waiting.
const LONGEST: Duration = Duration::from_secs(15);
/// The watch cache may be this much behind the status that was written: a fault that seems to have begun so little
/// after the Event about it is the same fault.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(5);

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// A publisher, and the work that sends until the last publisher is dropped and all is said. A fault that lasts is said again after
    /// `reminder`, which also keeps its Event from expiring (an hour after the last write, by default).
    pub fn new(
        client: Client,
        instance: String,
        reminder: Duration,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, notices) = channel(QUEUE);
        let worker = Worker {
            client,
            instance,
            reminder,
            metrics: metrics.clone(),
            told: HashMap::new(),
        };
        (Self { queue, metrics }, worker.run(notices))
    }

    /// Says it, soon, unless it has just been said.
    pub fn offer(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.metrics.event("dropped");
        }
    }
}

/// When an Event was last sent, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    count: i32,
    last: Timestamp,
    /// The version that says so: a replica that leads again must not count on from where it once stopped.
    version: Option<String>,
}

impl Told {
    /// Whether to say it again: a new occurrence at once, a fault that lasts as a reminder.
    fn is_due(&self, notice: &Notice, reminder: Duration, now: Timestamp) -> bool {
        // Whoever may edit Events may have dated it: no sum with it, which could overflow, and the future is now.
        let last = self.last.min(now);
        let (passed, since) = (now.duration_since(last), notice.since.duration_since(last));
        // Looks do not come on the dot; one a little early must not put the reminder off to the next.
        let reminder = SignedDuration::try_from(reminder * 9 / 10).unwrap_or(SignedDuration::MAX);
        notice.kind == Kind::Warning && passed >= reminder || since > CACHE_LAG
    }
}

struct Worker {
    client: Client,
    instance: String,
    reminder: Duration,
    metrics: Arc<Metrics>,
    told: HashMap<String, Told>,
}

impl Worker {
    async fn run(mut self, mut notices: Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            let result = match tokio::time::timeout(LONGEST, self.say(&notice)).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => {
                    tracing::warn!(regarding = notice.regarding.name, reason = notice.reason, %error, "cannot write the Event");
                    "dropped"
                }
                Err(_) => {
                    tracing::warn!(
                        regarding = notice.regarding.name,
                        reason = notice.reason,
                        "writing the Event takes too long"
                    );
                    "dropped"
                }
            };
            self.metrics.event(result);
            self.forget_expired();
        }
    }

    /// Sends one notice, unless it has been said. Returns what became of it, for the metrics.
    async fn say(&mut self, notice: &Notice) -> Result<&'static str, kube::Error> {
        let name = event_name(notice);
        let now = Timestamp::now();
        match self.told.get(&name).cloned() {
            Some(told) if !told.is_due(notice, self.reminder, now) => return Ok("suppressed"),
            Some(told) => match self.count_up(notice, &name, &told, now).await {
                // Deleted or expired meanwhile: begun anew below.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                // Another replica has said it meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    return self.resume(notice, &name, now).await;
                }
                result => return result,
            },
            None => {}
        }
        let events = self.events(notice);
        let (post, event) = (
            PostParams::default(),
            event(notice, &name, &self.instance, now),
        );
        match retrying(|| events.create(&post, &event)).await {
            Ok(created) => {
                self.told.insert(name, told(&created));
                Ok("sent")
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.resume(notice, &name, now).await
            }
            Err(error) => Err(error),
        }
    }

    /// Takes up the series of an Event that a former process, or another replica, began.
    async fn resume(
        &mut self,
        notice: &Notice,
        name: &str,
        now: Timestamp,
    ) -> Result<&'static str, kube::Error> {
        let (events, params) = (self.events(notice), write::patch());
        // An empty patch reads the Event with no more permission than writing takes.
        let nothing = Patch::Merge(json!({}));
        let known = retrying(|| events.patch(name, &params, &nothing)).await?;
        let told = told(&known);
        self.told.insert(name.to_owned(), told.clone());
        if told.is_due(notice, self.reminder, now) {
            self.count_up(notice, name, &told, now).await
        } else {
            Ok("suppressed")
        }
    }

    async fn count_up(
        &mut self,
        notice: &Notice,
        name: &str,
        before: &Told,
        now: Timestamp,
    ) -> Result<&'static str, kube::Error> {
        let series = EventSeries {
            count: before.count.saturating_add(1),
            last_observed_time: MicroTime(now),
        };
        let patch = json!({ "metadata": { "resourceVersion": before.version }, "series": series });
        let (events, params, patch) = (self.events(notice), write::patch(), Patch::Merge(patch));
        let written = retrying(|| events.patch(name, &params, &patch)).await?;
        self.told.insert(name.to_owned(), told(&written));
        Ok("merged")
    }

    fn events(&self, notice: &Notice) -> Api<Event> {
        Api::namespaced(
            self.client.clone(),
            notice.regarding.namespace.as_deref().unwrap_or_default(),
        )
    }

    /// Keeps the memory of what was told from growing: what was not said again for long is found on the API server.
    fn forget_expired(&mut self) {
        const MOST: usize = 50_000;
        if self.told.len() > MOST {
            let cutoff = Timestamp::now() - 2 * self.reminder;
            self.told.retain(|_, told| told.last > cutoff);
            if self.told.len() > MOST {
                self.told.clear();
            }
        }
    }
}

/// Tries again while the API server is busy or away; a refusal is final.
async fn retrying<T, Attempt>(attempt: impl Fn() -> Attempt) -> Result<T, kube::Error>
where
    Attempt: Future<Output = Result<T, kube::Error>>,
{
    let mut pause = Duration::from_millis(500);
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if is_transient(&error) => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause *= 2;
    }
    attempt().await
}

fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// A valid object name that is the same whenever the same is said to the same object.
fn event_name(notice: &Notice) -> String {
    let uid = notice.regarding.uid.as_deref().unwrap_or_default();
    let said = [uid, notice.kind.as_str(), &notice.reason, &notice.note].join("\0");
    let hash = digest::digest(&digest::SHA256, said.as_bytes());
    let hash: [u8; 8] = hash.as_ref()[..8].try_into().expect("eight are eight");
    // A name has at most 253 characters; that of a pod may be as long by itself.
    let subject = notice.regarding.name.as_deref().unwrap_or_default();
    let subject: String = subject.chars().take(200).collect();
    let subject = subject.trim_end_matches(['.', '-']);
    format!("{subject}.{:016x}", u64::from_be_bytes(hash))
}

fn event(notice: &Notice, name: &str, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: notice.regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some("Issue".into()),
        event_time: Some(MicroTime(now)),
        note: Some(notice.note.clone()),
        reason: Some(notice.reason.clone()),
        regarding: Some(notice.regarding.clone()),
        related: notice.related.clone(),
        reporting_controller: Some(COMPONENT.into()),
        reporting_instance: Some(crate::policy::text::cut(instance, 128)),
        type_: Some(notice.kind.as_str().into()),
        ..Event::default()
    }
}

fn told(event: &Event) -> Told {
    let first = event.event_time.as_ref().map(|time| time.0);
    let series = event.series.as_ref();
    Told {
        count: series.map_or(1, |series| series.count),
        last: series
            .map(|series| series.last_observed_time.0)
            .or(first)
            .unwrap_or(Timestamp::UNIX_EPOCH),
        version: event.metadata.resource_version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn notice(kind: Kind, since: i64) -> Notice {
        Notice {
            regarding: ObjectReference {
                uid: Some("u".into()),
                name: Some("pod".into()),
                ..ObjectReference::default()
            },
            related: None,
            kind,
            reason: "Reason".into(),
            note: "note".into(),
            since: Timestamp::from_second(since).unwrap(),
        }
    }

    #[test]
    fn a_name_depends_on_what_is_said_to_whom_and_on_nothing_else() {
        let base = event_name(&notice(Kind::Warning, 0));
        assert_eq!(base, event_name(&notice(Kind::Warning, 1000)));
        let mut others = vec![notice(Kind::Normal, 0); 4];
        others[1].note = "another note".into();
        others[2].reason = "Another".into();
        others[3].regarding.uid = Some("v".into());
        for other in others {
            assert_ne!(base, event_name(&other));
        }
    }

    #[test]
    fn a_name_is_valid_for_the_longest_pod_name() {
        let mut longest = notice(Kind::Warning, 0);
        longest.regarding.name = Some(format!("{}.{}", "a".repeat(199), "b".repeat(53)));
        let name = event_name(&longest);
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }

    #[test]
    fn a_fault_is_said_again_as_a_reminder_or_when_it_comes_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let reminder = Duration::from_secs(300);
        let told = Told {
            count: 1,
            last: at(1000),
            version: None,
        };
        for (since, now, due) in [
            (990, 1100, false),
            (1003, 1100, false),
            (990, 1300, true),
            (1050, 1100, true),
        ] {
            assert_eq!(
                told.is_due(&notice(Kind::Warning, since), reminder, at(now)),
                due,
                "{since} {now}"
            );
            assert_eq!(
                told.is_due(&notice(Kind::Normal, since), reminder, at(now)),
                since == 1050,
                "what was mended is told once each time"
            );
        }
    }

    #[test]
    fn a_series_is_taken_up_where_it_stood() {
        let now = Timestamp::from_second(1000).unwrap();
        let mut stored = event(&notice(Kind::Warning, 0), "name", "instance", now);
        stored.metadata.resource_version = Some("5".into());
        let as_stored = |count, last| Told {
            count,
            last,
            version: Some("5".into()),
        };
        assert_eq!(told(&stored), as_stored(1, now));
        let later = Timestamp::from_second(1300).unwrap();
        stored.series = Some(EventSeries {
            count: 7,
            last_observed_time: MicroTime(later),
        });
        assert_eq!(told(&stored), as_stored(7, later));
    }
}
