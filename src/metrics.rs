//! What is counted, in the text format of Prometheus (`OpenMetrics`).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admissions: Family<Admission, Counter>,
    issuances: Family<Cause, Counter>,
    events: Family<Ending, Counter>,
    /// Attempts to issue that failed.
    pub issuance_failures: Counter,
    /// Looks at a Pki that ended in an error and are taken again.
    pub reconcile_errors: Counter,
    /// How long a look at a Pki takes.
    pub reconcile_seconds: Histogram,
    /// Whether this replica leads.
    pub leader: Gauge,
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
struct Ending {
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pki_operator");
        let metrics = Self {
            admissions: Family::default(),
            issuances: Family::default(),
            events: Family::default(),
            issuance_failures: Counter::default(),
            reconcile_errors: Counter::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            leader: Gauge::default(),
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
            "Certificates issued, by reason: missing, unsound, renewal",
            metrics.issuances.clone(),
        );
        registry.register(
            "issuance_failures",
            "Attempts to issue that failed",
            metrics.issuance_failures.clone(),
        );
        registry.register(
            "events",
            "Events by result: sent, merged, suppressed, dropped",
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
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
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

    /// Counts what became of a notice.
    pub fn event(&self, result: &'static str) {
        self.events.get_or_create(&Ending { result }).inc();
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}
