//! What is counted, in the text format of Prometheus (`OpenMetrics`).

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
use prometheus_client::registry::{Registry, Unit};
use std::sync::{Arc, OnceLock};

mod certificates;
mod listeners;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admissions: Family<Admission, Counter>,
    issuances: Family<Cause, Counter>,
    events: Family<Event, Counter>,
    issuance_failures: Family<Cause, Counter>,
    restarts: Family<Restart, Counter>,
    ca_alarms: Family<Cause, Gauge>,
    ca_times: Family<Role, Gauge>,
    ca_waiting: Family<Cause, Gauge>,
    ca_blocked: Family<Cause, Gauge>,
    webhook_times: Family<Role, Gauge>,
    webhook_plain_path: Gauge,
    trust_bundles: Family<State, Gauge>,
    /// Looks at a Pki that ended in an error and are taken again.
    pub reconcile_errors: Counter,
    clock_skew: Gauge,
    clock_trusted: Gauge,
    /// How long a look at a Pki takes.
    pub reconcile_seconds: Histogram,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Connections, and requests that were not judged.
    pub listeners: Listeners,
    certificates: Arc<Certificates>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Admission {
    webhook: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Restart {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// `cause` is why it was not sent, or nothing; `reason` that of the Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    result: &'static str,
    cause: &'static str,
    reason: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pki_operator");
        let metrics = Self {
            admissions: Family::default(),
            issuances: Family::default(),
            events: Family::default(),
            issuance_failures: Family::default(),
            restarts: Family::default(),
            ca_alarms: Family::default(),
            ca_times: Family::default(),
            ca_waiting: Family::default(),
            ca_blocked: Family::default(),
            webhook_times: Family::default(),
            webhook_plain_path: Gauge::default(),
            trust_bundles: Family::default(),
            reconcile_errors: Counter::default(),
            clock_skew: Gauge::default(),
            clock_trusted: Gauge::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            leader: Gauge::default(),
            listeners: Listeners::default(),
            certificates: Arc::default(),
            registry: Registry::default(),
        };
        registry.register(
            "build",
            "The build of the operator",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "admission_requests",
            "Admission requests answered, by webhook and verdict",
            metrics.admissions.clone(),
        );
        registry.register(
            "issuances",
            "Certificates issued, by reason: missing, unsound, renewal, request, ca",
            metrics.issuances.clone(),
        );
        registry.register(
            "issuance_failures",
            "Attempts to issue that failed, by reason: ca, certificate, format, api",
            metrics.issuance_failures.clone(),
        );
        registry.register(
            "restarts",
            "Workloads that were to be restarted after a renewal, by result: restarted, failed",
            metrics.restarts.clone(),
        );
        metrics.register_ca(&mut registry);
        registry.register(
            "events",
            "Events by result (sent, merged, suppressed, dropped), cause of the last two, and reason of the Event",
            metrics.events.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciliations that failed and are tried again",
            metrics.reconcile_errors.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a reconciliation",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica reconciles",
            metrics.leader.clone(),
        );
        registry.register_with_unit(
            "clock_skew",
            "By how much the clock of this replica is ahead of the API server's",
            Unit::Seconds,
            metrics.clock_skew.clone(),
        );
        registry.register(
            "clock_trusted",
            "1 while the clock of this replica agrees with the API server's; else it neither leads nor issues",
            metrics.clock_trusted.clone(),
        );
        metrics.listeners.register(&mut registry);
        let certificates = Certificates {
            cache: OnceLock::new(),
            leader: metrics.leader.clone(),
        };
        let metrics = Self {
            certificates: Arc::new(certificates),
            ..metrics
        };
        registry.register_collector(Box::new(metrics.certificates.clone()));
        metrics.begin_at_zero();
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// What tells of the CAs, and of those who trust them.
    fn register_ca(&self, registry: &mut Registry) {
        registry.register(
            "ca_alarm",
            "1 while the CA needs attention, by reason: missing, lost, replaced, unusable, ledger, api",
            self.ca_alarms.clone(),
        );
        registry.register(
            "ca_expiry_timestamp_seconds",
            "End of the CA certificates, by role: current, next, previous",
            self.ca_times.clone(),
        );
        registry.register(
            "webhook_expiry_timestamp_seconds",
            "End of the certificates that this replica answers admission with, by role: ca, serving",
            self.webhook_times.clone(),
        );
        registry.register(
            "webhook_plain_path",
            "1 while this replica answers admission at the plain path, where whoever reaches the port may ask",
            self.webhook_plain_path.clone(),
        );
        registry.register(
            "trust_bundles",
            "ConfigMaps with the CA bundle, by state: current, foreign, failing",
            self.trust_bundles.clone(),
        );
        registry.register(
            "ca_rotation_waiting_for",
            "What keeps a rotation of the CA from going on, by reason: unpublished, of_previous",
            self.ca_waiting.clone(),
        );
        registry.register(
            "ca_rotation_blocked_by",
            "Those whom a rotation of the CA cannot reach, by reason: refused, foreign, conflict, contested, failed, unsigned, behind, namespace, bundle",
            self.ca_blocked.clone(),
        );
    }

    /// What has not failed yet is zero, not absent: only then an alert sees the first failure.
    fn begin_at_zero(&self) {
        for reason in ["ca", "certificate", "format", "api"] {
            drop(self.issuance_failures.get_or_create(&Cause { reason }));
        }
        for result in ["restarted", "failed"] {
            drop(self.restarts.get_or_create(&Restart { result }));
        }
    }

    /// Shows the Pkis and pods of this cache on the page, while this replica leads.
    pub fn show(&self, cache: Arc<Cache>) {
        // There is one cache in a process, so it is set once.
        let _ = self.certificates.cache.set(cache);
    }

    /// Tells how the clock compares with the API server's, once that is known.
    pub fn clock(&self, skew: Option<SignedDuration>, is_trusted: bool) {
        if let Some(skew) = skew {
            self.clock_skew.set(skew.as_secs());
        }
        self.clock_trusted.set(i64::from(is_trusted));
    }

    /// Counts an answered admission request.
    pub fn admission(&self, webhook: &'static str, verdict: &'static str) {
        self.admissions
            .get_or_create(&Admission { webhook, verdict })
            .inc();
    }

    /// Counts an issued certificate.
    pub fn issued(&self, reason: &'static str) {
        self.issuances.get_or_create(&Cause { reason }).inc();
    }

    /// Counts an attempt to issue that failed.
    pub fn issuance_failed(&self, reason: &'static str) {
        self.issuance_failures
            .get_or_create(&Cause { reason })
            .inc();
    }

    /// Counts an attempt to restart a workload.
    pub fn restart(&self, result: &'static str) {
        self.restarts.get_or_create(&Restart { result }).inc();
    }

    /// Tells what is wrong with the CA, if anything is.
    pub fn ca_alarm(&self, reason: Option<&'static str>) {
        self.ca_alarms.clear();
        if let Some(reason) = reason {
            self.ca_alarms.get_or_create(&Cause { reason }).set(1);
        }
    }

    /// Tells when the CAs end.
    pub fn ca(&self, state: &CaState) {
        self.ca_times.clear();
        for (role, ca) in [
            ("current", Some(&state.current)),
            ("next", state.next.as_ref().map(|next| &next.ca)),
            (
                "previous",
                state.trusted().next().map(|previous| &previous.ca),
            ),
        ] {
            if let Some(ca) = ca {
                let end = self.ca_times.get_or_create(&Role { role });
                end.set(ca.not_after().as_second());
            }
        }
    }

    /// Tells when the webhook's CA ends, and the serving certificate.
    pub fn webhook(&self, ca: Timestamp, serving: Timestamp) {
        for (role, end) in [("ca", ca), ("serving", serving)] {
            let gauge = self.webhook_times.get_or_create(&Role { role });
            gauge.set(end.as_second());
        }
    }

    /// Tells whether the webhook is answered at its plain path.
    pub fn webhook_plain_path(&self, is_answered: bool) {
        self.webhook_plain_path.set(is_answered.into());
    }

    /// Tells how many copies of the CA bundle there are, by state.
    pub fn trust_bundles(&self, counts: &[(&'static str, usize)]) {
        self.trust_bundles.clear();
        for (state, count) in counts {
            let gauge = self.trust_bundles.get_or_create(&State { state });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Tells what a rotation waits for.
    pub fn ca_waits(&self, progress: &RolloutProgress) {
        let set = |family: &Family<Cause, Gauge>, reason, count| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family.get_or_create(&Cause { reason }).set(count);
        };
        for (reason, count) in [
            ("unpublished", progress.unpublished),
            ("of_previous", progress.of_retired),
        ] {
            set(&self.ca_waiting, reason, count);
        }
        for reason in rollout::REASONS {
            let count = progress.blockers.counts.get(reason).copied();
            set(&self.ca_blocked, reason, count.unwrap_or_default());
        }
    }

    /// Tells nothing of the CA any more.
    pub fn forget_ca(&self) {
        self.ca_alarms.clear();
        self.ca_times.clear();
        self.ca_waiting.clear();
        self.ca_blocked.clear();
    }

    /// Counts what became of a notice with this reason.
    pub fn event(&self, ending: Ending, reason: &str) {
        let (result, cause) = match ending {
            Ending::Sent => ("sent", ""),
            Ending::Merged => ("merged", ""),
            Ending::Suppressed(cause) => ("suppressed", cause),
            Ending::Dropped(cause) => ("dropped", cause),
        };
        let reason = reason.to_owned();
        let event = Event {
            result,
            cause,
            reason,
        };
        self.events.get_or_create(&event).inc();
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki_certs::Authority;

    fn lines<'a>(page: &'a str, metric: &str) -> Vec<&'a str> {
        page.lines()
            .filter(|line| line.starts_with(&format!("pki_operator_{metric}{{")))
            .collect()
    }

    #[test]
    fn an_alarm_is_shown_while_it_lasts() {
        let metrics = Metrics::default();
        for (alarm, shown) in [
            (None, vec![]),
            (
                Some("lost"),
                vec![r#"pki_operator_ca_alarm{reason="lost"} 1"#],
            ),
            (
                Some("replaced"),
                vec![r#"pki_operator_ca_alarm{reason="replaced"} 1"#],
            ),
            (None, vec![]),
        ] {
            metrics.ca_alarm(alarm);
            assert_eq!(lines(&metrics.page(), "ca_alarm"), shown);
        }
    }

    #[test]
    fn the_end_of_each_ca_is_shown_while_it_is_one() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::generate("ca", SignedDuration::from_hours(1), now).unwrap();
        let state = CaState::of(authority.ca().clone());
        let pem = authority.ca().root_pem().to_owned();
        let data = ["current.crt", "next.crt"].map(|key| (key.to_owned(), pem.clone()));
        let map = k8s_openapi::api::core::v1::ConfigMap {
            data: Some(data.into()),
            ..Default::default()
        };
        let both = CaState::read(&map, now).unwrap();
        let metrics = Metrics::default();
        metrics.ca(&both);
        assert_eq!(
            lines(&metrics.page(), "ca_expiry_timestamp_seconds").len(),
            2
        );
        metrics.ca(&state);
        let end = r#"pki_operator_ca_expiry_timestamp_seconds{role="current"} 1893459600"#;
        assert_eq!(lines(&metrics.page(), "ca_expiry_timestamp_seconds"), [end]);
    }

    #[test]
    fn the_ends_of_the_webhooks_certificates_are_shown_once_there_are_any() {
        let metrics = Metrics::default();
        let shown = |page: &str| lines(page, "webhook_expiry_timestamp_seconds").join("\n");
        assert_eq!(shown(&metrics.page()), "");
        let at = |second| Timestamp::from_second(second).unwrap();
        metrics.webhook(at(1), at(2));
        metrics.webhook(at(2_000_000_000), at(1_900_000_000));
        for (role, end) in [("ca", 2_000_000_000), ("serving", 1_900_000_000)] {
            let line = format!(r#"{{role="{role}"}} {end}"#);
            assert!(shown(&metrics.page()).contains(&line), "{}", metrics.page());
        }
    }

    #[test]
    fn a_failure_that_has_not_happened_is_zero_and_not_absent() {
        let metrics = Metrics::default();
        let failures = |page: &str| lines(page, "issuance_failures_total").join("\n");
        let page = metrics.page();
        for reason in ["ca", "certificate", "format", "api"] {
            assert!(
                failures(&page).contains(&format!("{{reason=\"{reason}\"}} 0")),
                "{page}"
            );
        }
        let restarts = r#"pki_operator_restarts_total{result="failed"} 0"#;
        assert!(page.contains(restarts), "{page}");
        metrics.issuance_failed("format");
        assert!(failures(&metrics.page()).contains(r#"{reason="format"} 1"#));
        metrics.issued("ca");
        let issued = [r#"pki_operator_issuances_total{reason="ca"} 1"#];
        assert_eq!(lines(&metrics.page(), "issuances_total"), issued);
    }
}
