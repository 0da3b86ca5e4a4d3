//! Metrics of namespaces and of each Pki, read from the cache when somebody asks: nothing is kept
//! twice, and nothing is left behind by a Pki that is gone.

use crate::api::{Pki, READY};
use crate::k8s::scope::Refused;
use crate::policy;
use crate::store::Cache;
use crate::store::cached_pki::KnownPki;
use crate::store::secret_index::ReferencesSecrets as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The cache, once there is one. Only the leader shows the Pkis in it, so that each is there once.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) cache: OnceLock<Arc<Cache>>,
    pub(super) leader: Gauge,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates(..)")
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cache) = self.cache.get() else {
            return Ok(());
        };
        encode_refused(&mut encoder, cache.scope.refused())?;
        encode_ages(&mut encoder, cache)?;
        if self.leader.get() != 1 {
            return Ok(());
        }
        let pkis = PkiMetrics::of(cache);
        for (place, (name, help, _)) in SHOWN.iter().enumerate() {
            let mut metric = gauge(&mut encoder, name, help)?;
            for (pki, values) in &pkis.shown {
                let Some(value) = values[place] else { continue };
                let key = pki.key();
                let labels = [("namespace", &*key.namespace), ("name", &*key.name)];
                series(&mut metric, &labels, value)?;
            }
        }
        let help = "Pkis not reconciled since their last edit";
        let metric = gauge(&mut encoder, "queue_depth", help)?;
        ConstGauge::new(pkis.waiting).encode(metric)?;

        let help = "Stored Pkis that no policy permits, by namespace and reason; one series of 0 if there are none";
        let mut metric = gauge(&mut encoder, "pkis_refused", help)?;
        for ((namespace, reason), count) in pkis.refused {
            let labels = [("namespace", namespace), ("reason", reason)];
            series(&mut metric, &labels, count)?;
        }
        let help = "Pods that cannot start before the operator writes a Secret, by namespace; one series of 0 if there are none";
        let mut metric = gauge(&mut encoder, "pods_waiting", help)?;
        for (namespace, count) in waiting_pods(cache) {
            series(&mut metric, &[("namespace", namespace)], count)?;
        }
        Ok(())
    }
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn series<V: EncodeGaugeValue>(
    metric: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: V,
) -> fmt::Result
where
    ConstGauge<V>: EncodeMetric,
{
    ConstGauge::new(value).encode(metric.encode_family(labels)?)
}

/// The namespaces that are to be served and may not be read. One line of zero where there is none.
fn encode_refused(encoder: &mut DescriptorEncoder<'_>, refused: Refused) -> fmt::Result {
    let help = "1 while the operator may not read a resource in a namespace of --namespaces; one series of 0 if there are none";
    let mut metric = gauge(encoder, "namespace_refused", help)?;
    if refused.is_empty() {
        return series(&mut metric, &[("namespace", ""), ("resource", "")], 0);
    }
    for (namespace, resources) in refused {
        for resource in resources {
            let labels = [("namespace", namespace.as_str()), ("resource", resource)];
            series(&mut metric, &labels, 1)?;
        }
    }
    Ok(())
}

fn encode_ages(encoder: &mut DescriptorEncoder<'_>, cache: &Cache) -> fmt::Result {
    let help = "Time since the API server last confirmed the watch of a resource";
    let mut metric = gauge(encoder, "watch_age_seconds", help)?;
    for (resource, age) in cache.watch_ages() {
        series(&mut metric, &[("resource", resource)], age.as_secs_f64())?;
    }
    Ok(())
}

#[derive(Default)]
struct PkiMetrics {
    /// The values that are [shown](SHOWN) of each.
    shown: Vec<(Arc<KnownPki>, [Option<i64>; SHOWN.len()])>,
    /// How many have not been reconciled since they were last edited.
    waiting: i64,
    /// Number that break a rule, by namespace and reason. One entry of 0 where none does, so that
    /// an alert on the sum has a value at all times.
    refused: BTreeMap<(String, String), i64>,
}

impl PkiMetrics {
    fn of(cache: &Cache) -> Self {
        let mut all = Self::default();
        for known in cache.known_pkis() {
            let Ok(pki) = known.unpack().0 else { continue };
            all.shown
                .push((known, SHOWN.map(|(_, _, value)| value(&pki))));
            let observed = pki.status.as_ref().and_then(|it| it.observed_generation);
            all.waiting += i64::from(observed != pki.metadata.generation);
            let ready = pki.condition(READY).filter(|ready| ready.status == "False");
            if let Some(ready) = ready.filter(|ready| policy::is_reason(&ready.reason)) {
                let key = (pki.namespace().unwrap_or_default(), ready.reason.clone());
                *all.refused.entry(key).or_default() += 1;
            }
        }
        if all.refused.is_empty() {
            all.refused.insert(Default::default(), 0);
        }
        all
    }
}

/// The pods that wait for a Secret which is not there and which a Pki claims, or would if it had
/// not been refused.
fn waiting_pods(cache: &Cache) -> BTreeMap<String, i64> {
    let awaited = cache.awaited();
    let ours = awaited
        .iter()
        .filter(|(secret, awaited)| awaited.is_claimed || cache.rejections.concern(secret));
    // A pod may wait for several.
    let waiting: BTreeSet<_> = ours
        .flat_map(|(_, awaited)| &awaited.pods)
        .map(|pod| &pod.key)
        .collect();
    let mut counts = BTreeMap::new();
    for pod in waiting {
        *counts.entry(pod.namespace.to_string()).or_default() += 1;
    }
    if counts.is_empty() {
        counts.insert(String::new(), 0);
    }
    counts
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
        "Expiry of the certificate",
        |pki| seconds(pki.status.as_ref()?.not_after.as_ref()),
    ),
    (
        "certificate_not_before_timestamp_seconds",
        "Start of the certificate's validity",
        |pki| seconds(pki.status.as_ref()?.not_before.as_ref()),
    ),
    (
        "certificate_renewal_timestamp_seconds",
        "Time of the next renewal of the certificate",
        |pki| seconds(pki.status.as_ref()?.renewal_time.as_ref()),
    ),
];

fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}
