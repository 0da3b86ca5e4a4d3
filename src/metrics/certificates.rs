//! What there is to tell of each Pki, read from the cache when somebody asks: nothing is kept twice, and nothing is left
//! behind by a Pki that is gone.

use crate::api::{Pki, READY, StoredPki};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The Pkis of the cache, once there is one. Only the leader shows them, so that each is there once.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) pkis: OnceLock<Store<StoredPki>>,
    pub(super) leader: Gauge,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates(..)")
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(pkis) = self.pkis.get().filter(|_| self.leader.get() == 1) else {
            return Ok(());
        };
        let stored = pkis.state();
        for (name, help, value) in SHOWN {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for pki in stored.iter().filter_map(|stored| stored.0.as_ref().ok()) {
                let Some(value) = value(pki) else { continue };
                let labels = [
                    ("namespace", pki.namespace().unwrap_or_default()),
                    ("name", pki.name_any()),
                ];
                let series = metric.encode_family(&labels)?;
                ConstGauge::new(value).encode(series)?;
            }
        }
        let waiting = stored.iter().filter(|stored| is_unobserved(stored)).count();
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        let help = "Pkis that the operator has not looked at since they were last edited";
        let metric = encoder.encode_descriptor("queue_depth", help, None, MetricType::Gauge)?;
        ConstGauge::new(waiting).encode(metric)
    }
}

/// A metric of each Pki: name, help and value.
type Shown = (&'static str, &'static str, fn(&Pki) -> Option<i64>);

const SHOWN: [Shown; 4] = [
    (
        "pki_ready",
        "1 if the Secret holds a valid certificate that matches the spec",
        |pki| Some(i64::from(pki.condition(READY)?.status == "True")),
    ),
    (
        "certificate_expiry_timestamp_seconds",
        "End of the certificate's validity",
        |pki| seconds(pki.status.as_ref()?.not_after.as_ref()),
    ),
    (
        "certificate_not_before_timestamp_seconds",
        "Start of the certificate's validity",
        |pki| seconds(pki.status.as_ref()?.not_before.as_ref()),
    ),
    (
        "certificate_renewal_timestamp_seconds",
        "When the certificate is renewed",
        |pki| seconds(pki.status.as_ref()?.renewal_time.as_ref()),
    ),
];

fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

fn is_unobserved(stored: &Arc<StoredPki>) -> bool {
    stored.0.as_ref().is_ok_and(|pki| {
        let observed = pki
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        observed != pki.metadata.generation
    })
}
