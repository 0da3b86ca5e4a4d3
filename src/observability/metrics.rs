//! The metrics, in the text format of Prometheus (`OpenMetrics`).

use crate::model::ca_state::CaState;
use crate::model::event::Ending;
use crate::model::rollout::{self, RolloutProgress};
use crate::store::Cache;
use certificates::Certificates;
use jiff::{SignedDuration, Timestamp};
use listeners::Listeners;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::{Arc, OnceLock};

mod certificates;
mod listeners;

/// The labels of a series whose values are known here.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges = Family<Labels<1>, Gauge>;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    admissions: Counters<2>,
    issuances: Counters<1>,
    issuance_failures: Counters<1>,
    restarts: Counters<1>,
    ca_alarms: Gauges,
    ca_times: Gauges,
    webhook_times: Gauges,
    webhook_plain_path: Gauge,
    trust_bundles: Gauges,
    ca_waiting: Gauges,
    ca_blocked: Gauges,
    events: Family<Event, Counter>,
    /// Reconciliations that failed and are tried again.
    pub reconcile_errors: Counter,
    /// How long the reconciliation of a Pki takes.
    pub reconcile_seconds: Histogram,
    pod_requests: Counters<1>,
    open_pod_requests: Gauge,
    /// The time from when a request for a pod certificate is seen until it is signed.
    pub pod_request_seconds: Histogram,
    /// Whether this replica leads.
    pub leader: Gauge,
    clock_skew: Gauge,
    clock_trusted: Gauge,
    /// Connections, and requests that were not judged.
    pub listeners: Listeners,
    certificates: Arc<Certificates>,
    registry: Registry,
}

/// `cause` is why it was not sent, or nothing; `reason` that of the Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    result: &'static str,
    cause: &'static str,
    reason: String,
}

fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn add_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Descriptions on the page.
mod help {
    pub(super) const ADMISSIONS: &str = "Answered admission requests, by webhook and verdict";
    pub(super) const ISSUANCES: &str =
        "Issued certificates, by reason: missing, unsound, renewal, request, ca";
    pub(super) const ISSUANCE_FAILURES: &str =
        "Failed attempts to issue, by reason: ca, certificate, format, api";
    pub(super) const RESTARTS: &str =
        "Attempts to restart a workload after a renewal, by result: restarted, failed";
    pub(super) const CA_ALARMS: &str =
        "1 while the CA needs attention, by reason: missing, lost, replaced, unusable, ledger, api";
    pub(super) const CA_TIMES: &str =
        "Expiry of the CA certificates, by role: current, next, previous";
    pub(super) const WEBHOOK_TIMES: &str =
        "Expiry of the webhook certificates of this replica, by role: ca, serving";
    pub(super) const WEBHOOK_PLAIN_PATH: &str =
        "1 while this replica answers admission at the plain path, which needs no secret segment";
    pub(super) const TRUST_BUNDLES: &str =
        "ConfigMaps with the CA bundle, by state: current, foreign, failing";
    pub(super) const CA_WAITING: &str =
        "Objects that delay a rotation of the CA, by reason: unpublished, of_previous";
    pub(super) const CA_BLOCKED: &str = "Objects that a rotation of the CA cannot update, by reason: refused, foreign, conflict, contested, failed, unsigned, behind, namespace, bundle";
    pub(super) const EVENTS: &str = "Events by result (sent, merged, suppressed, dropped), cause if suppressed or dropped, and reason of the Event";
    pub(super) const RECONCILE_ERRORS: &str = "Failed reconciliations, which are retried";
    pub(super) const RECONCILE_SECONDS: &str = "Duration of reconciling a Pki";
    pub(super) const POD_REQUESTS: &str =
        "Requests for pod certificates that ended, by result: signed, denied";
    pub(super) const OPEN_POD_REQUESTS: &str = "Requests for pod certificates that are open";
    pub(super) const POD_REQUEST_SECONDS: &str =
        "Time from when a request for a pod certificate is seen until it is signed";
    pub(super) const LEADER: &str = "1 while this replica reconciles";
    pub(super) const CLOCK_SKEW: &str =
        "Seconds by which the clock of this replica is ahead of the API server's";
    pub(super) const CLOCK_TRUSTED: &str = "1 while the clock of this replica agrees with the API server's; at 0 it does not lead or issue";
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pki_operator");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The build of the operator", build);
        let page = &mut registry;
        // The fields are in the order of the page.
        let mut metrics = Self {
            admissions: add(page, "admission_requests", help::ADMISSIONS),
            issuances: add(page, "issuances", help::ISSUANCES),
            issuance_failures: add(page, "issuance_failures", help::ISSUANCE_FAILURES),
            restarts: add(page, "restarts", help::RESTARTS),
            ca_alarms: add(page, "ca_alarm", help::CA_ALARMS),
            ca_times: add(page, "ca_expiry_timestamp_seconds", help::CA_TIMES),
            webhook_times: add(
                page,
                "webhook_expiry_timestamp_seconds",
                help::WEBHOOK_TIMES,
            ),
            webhook_plain_path: add(page, "webhook_plain_path", help::WEBHOOK_PLAIN_PATH),
            trust_bundles: add(page, "trust_bundles", help::TRUST_BUNDLES),
            ca_waiting: add(page, "ca_rotation_waiting_for", help::CA_WAITING),
            ca_blocked: add(page, "ca_rotation_blocked_by", help::CA_BLOCKED),
            events: add(page, "events", help::EVENTS),
            reconcile_errors: add(page, "reconcile_errors", help::RECONCILE_ERRORS),
            reconcile_seconds: add_seconds(
                page,
                "reconcile_duration",
                help::RECONCILE_SECONDS,
                Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            ),
            pod_requests: add(page, "pod_certificate_requests", help::POD_REQUESTS),
            open_pod_requests: add(
                page,
                "pod_certificate_requests_open",
                help::OPEN_POD_REQUESTS,
            ),
            pod_request_seconds: add_seconds(
                page,
                "pod_certificate_duration",
                help::POD_REQUEST_SECONDS,
                Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            ),
            leader: add(page, "leader", help::LEADER),
            clock_skew: add_seconds(page, "clock_skew", help::CLOCK_SKEW, Gauge::default()),
            clock_trusted: add(page, "clock_trusted", help::CLOCK_TRUSTED),
            listeners: Listeners::register(page),
            certificates: Arc::default(),
            registry: Registry::default(),
        };
        metrics.certificates = Arc::new(Certificates {
            cache: OnceLock::new(),
            leader: metrics.leader.clone(),
        });
        registry.register_collector(Box::new(metrics.certificates.clone()));
        metrics.registry = registry;
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// Creates the series of failures at zero: an alert does not see the first failure otherwise.
    fn begin_at_zero(&self) {
        for reason in ["ca", "certificate", "format", "api"] {
            drop(self.issuance_failures.get_or_create(&[("reason", reason)]));
        }
        for result in ["signed", "denied"] {
            drop(self.pod_requests.get_or_create(&[("result", result)]));
        }
        for result in ["restarted", "failed"] {
            drop(self.restarts.get_or_create(&[("result", result)]));
        }
    }

    /// Shows the Pkis and pods of this cache on the page, while this replica leads.
    pub fn show(&self, cache: Arc<Cache>) {
        // There is one cache in a process, so it is set once.
        let _ = self.certificates.cache.set(cache);
    }

    /// Shows how the clock compares with the API server's, once that is known.
    pub fn clock(&self, skew: Option<SignedDuration>, is_trusted: bool) {
        if let Some(skew) = skew {
            self.clock_skew.set(skew.as_secs());
        }
        self.clock_trusted.set(i64::from(is_trusted));
    }

    /// Counts an answered admission request.
    pub fn admission(&self, webhook: &'static str, verdict: &'static str) {
        let labels = [("webhook", webhook), ("verdict", verdict)];
        self.admissions.get_or_create(&labels).inc();
    }

    /// Counts an issued certificate.
    pub fn issued(&self, reason: &'static str) {
        self.issuances.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts an attempt to issue that failed.
    pub fn issuance_failed(&self, reason: &'static str) {
        let labels = [("reason", reason)];
        self.issuance_failures.get_or_create(&labels).inc();
    }

    /// Counts a request for a pod certificate that ended.
    pub fn pod_request(&self, result: &'static str) {
        let labels = [("result", result)];
        self.pod_requests.get_or_create(&labels).inc();
    }

    /// Shows how many requests for pod certificates are open.
    pub fn open_pod_requests(&self, count: usize) {
        self.open_pod_requests.set(gauge_value(count));
    }

    /// Counts an attempt to restart a workload.
    pub fn restart(&self, result: &'static str) {
        self.restarts.get_or_create(&[("result", result)]).inc();
    }

    /// Shows what is wrong with the CA, if anything is.
    pub fn ca_alarm(&self, reason: Option<&'static str>) {
        self.ca_alarms.clear();
        if let Some(reason) = reason {
            self.ca_alarms.get_or_create(&[("reason", reason)]).set(1);
        }
    }

    /// Shows when the CAs end.
    pub fn ca(&self, state: &CaState) {
        self.ca_times.clear();
        let next = state.next.iter().map(|next| ("next", &next.ca));
        let previous = state.trusted().take(1).map(|it| ("previous", &it.ca));
        let current = std::iter::once(("current", &state.current));
        for (role, ca) in current.chain(next).chain(previous) {
            let end = self.ca_times.get_or_create(&[("role", role)]);
            end.set(ca.not_after().as_second());
        }
    }

    /// Shows when the webhook's CA ends, and the serving certificate.
    pub fn webhook(&self, ca: Timestamp, serving: Timestamp) {
        for (role, end) in [("ca", ca), ("serving", serving)] {
            let gauge = self.webhook_times.get_or_create(&[("role", role)]);
            gauge.set(end.as_second());
        }
    }

    /// Shows whether the webhook is answered at its plain path.
    pub fn webhook_plain_path(&self, is_answered: bool) {
        self.webhook_plain_path.set(is_answered.into());
    }

    /// Shows how many copies of the CA bundle there are, by state.
    pub fn trust_bundles(&self, counts: &[(&'static str, usize)]) {
        self.trust_bundles.clear();
        for (state, count) in counts {
            let gauge = self.trust_bundles.get_or_create(&[("state", *state)]);
            gauge.set(gauge_value(*count));
        }
    }

    /// Shows what a rotation waits for.
    pub fn ca_waits(&self, progress: &RolloutProgress) {
        let set = |family: &Gauges, reason, count| {
            let gauge = family.get_or_create(&[("reason", reason)]);
            gauge.set(gauge_value(count));
        };
        set(&self.ca_waiting, "unpublished", progress.unpublished);
        set(&self.ca_waiting, "of_previous", progress.of_retired);
        for reason in rollout::REASONS {
            let count = progress.blockers.counts.get(reason).copied();
            set(&self.ca_blocked, reason, count.unwrap_or_default());
        }
    }

    /// Shows nothing of the CA any more.
    pub fn forget_ca(&self) {
        self.ca_alarms.clear();
        self.ca_times.clear();
        self.ca_waiting.clear();
        self.ca_blocked.clear();
    }

    /// Counts what became of an Event with this reason.
    pub fn event(&self, ending: Ending, reason: &str) {
        let (result, cause) = match ending {
            Ending::Sent => ("sent", ""),
            Ending::Merged => ("merged", ""),
            Ending::Suppressed(cause) => ("suppressed", cause),
            Ending::Dropped(cause) => ("dropped", cause),
        };
        let labels = Event {
            result,
            cause,
            reason: reason.to_owned(),
        };
        self.events.get_or_create(&labels).inc();
    }

    /// The page, in the text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}

#[cfg(test)]
mod tests;
