//! Publishes Events about annotations and labels of `box.com/` that have no effect, on the objects
//! that carry them.
//!
//! No webhook sees pods, workloads, Secrets and namespaces, and some tools drop the warnings of the
//! one that sees Pkis. The caches keep the entries in question of each watched object as
//! [`Ignored`]; the leader publishes them.

use crate::api::annotations::Carrier;
use crate::api::{GROUP, VERSION};
use crate::events::{Aspect, EventTemplate, NOTE_BYTES, Notice, Publisher};
use crate::k8s::object_key::Key;
use crate::store::Cache;
use crate::store::ignored::Ignored;
use crate::store::secret_index::ReferencesSecrets;
use crate::util::text;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Minimum interval between two sweeps.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum interval between two sweeps, so that a fault that lasts is published again. The
/// publisher drops what is not due.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of objects with an Event, in one namespace and in all.
const MAX_PER_NAMESPACE: usize = 100;
const MAX_EVENTS: usize = 2000;
/// The reason of the Events, and of findings of `kubectl pki check`.
pub(crate) const REASON: &str = "PkiAnnotationIgnored";

/// Publishes for as long as it is polled. For the leader.
pub async fn follow(cache: Arc<Cache>, publisher: Publisher) {
    cache.synced().await;
    loop {
        let (swept, publisher) = (cache.clone(), publisher.clone());
        // The sweep computes, and the leader has its Lease to renew.
        let sweep = tokio::task::spawn_blocking(move || {
            for notice in notices(found(&swept)) {
                publisher.offer(notice);
            }
        });
        let _ = sweep.await;
        tokio::time::sleep(MIN_INTERVAL).await;
        let _ = tokio::time::timeout(MAX_INTERVAL, cache.ignored_changed()).await;
    }
}

fn found(cache: &Cache) -> Vec<(Carrier, Key, Ignored)> {
    let mut found = Vec::new();
    let mut take = |carrier, key: &Key, ignored: &Ignored| {
        if !ignored.is_empty() {
            found.push((carrier, key.clone(), ignored.clone()));
        }
    };
    for pki in cache.pkis.read().all() {
        take(Carrier::Pki, pki.key(), &pki.ignored);
    }
    for pod in cache.pods.read().all() {
        take(Carrier::Pod, &pod.key, &pod.ignored);
    }
    let settings = cache.rules().settings.clone();
    for secret in cache.secrets.read().all() {
        let key = secret.key();
        let carrier = if settings.is_reserved(&key.namespace, &key.name) {
            Carrier::CaSecret
        } else {
            Carrier::Secret
        };
        take(carrier, key, &secret.ignored);
    }
    for (carrier, object) in cache.misannotated() {
        take(carrier, &object.key, &object.ignored);
    }
    found
}

/// The Events about them: of each namespace the first objects by name. If there are too many in
/// all, namespaces are served round robin.
fn notices(mut found: Vec<(Carrier, Key, Ignored)>) -> Vec<Notice> {
    found.sort_unstable_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    let mut counts = BTreeMap::<String, usize>::new();
    let mut notices = Vec::new();
    let all = found.iter();
    for notice in all.filter_map(|(carrier, key, ignored)| notice(ignored, *carrier, key)) {
        let namespace = notice.regarding.namespace.clone().unwrap_or_default();
        let count = counts.entry(namespace).or_default();
        *count += 1;
        if *count <= MAX_PER_NAMESPACE {
            notices.push((*count, notice));
        }
    }
    notices.sort_by_key(|(number, _)| *number);
    let notices = notices.into_iter().map(|(_, notice)| notice);
    notices.take(MAX_EVENTS).collect()
}

/// An Event about a namespace goes into that namespace, where its users read it.
fn reference(carrier: Carrier, key: &Key, uid: &str) -> ObjectReference {
    let own = format!("{GROUP}/{VERSION}");
    let (api_version, kind) = match carrier {
        Carrier::Pki => (&*own, "Pki"),
        Carrier::PkiPolicy => (&*own, "PkiPolicy"),
        Carrier::Secret | Carrier::CaSecret => ("v1", "Secret"),
        Carrier::ConfigMap => ("v1", "ConfigMap"),
        Carrier::Namespace => ("v1", "Namespace"),
        Carrier::Deployment => ("apps/v1", "Deployment"),
        Carrier::StatefulSet => ("apps/v1", "StatefulSet"),
        Carrier::DaemonSet => ("apps/v1", "DaemonSet"),
        Carrier::Pod | Carrier::PodTemplate | Carrier::Other => ("v1", "Pod"),
    };
    let namespace = match carrier {
        Carrier::Namespace => &key.name,
        _ => &key.namespace,
    };
    let place = Key::new(namespace.clone(), key.name.clone());
    place.reference(api_version, kind, Some(uid.to_owned()))
}

/// The Event about the entries of an object. `None` if they have an effect on such an object.
fn notice(ignored: &Ignored, carrier: Carrier, key: &Key) -> Option<Notice> {
    let (uid, faults) = ignored.faults(carrier)?;
    let message = text::list("", &faults, NOTE_BYTES);
    let template = EventTemplate::warning(Aspect::Annotation, REASON, message);
    Some(template.on(reference(carrier, key, uid), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ignored(carrier: Carrier, meta: Value) -> Ignored {
        Ignored::of(carrier, &serde_json::from_value(meta).unwrap())
    }

    #[test]
    fn an_object_gets_one_event_about_all_entries_without_effect() {
        let meta = json!({"uid": "u", "labels": {"box.com/x": ""}, "annotations": {"box.com/restart-on-renewal": "true", "a": "b"}});
        let found = ignored(Carrier::Pod, meta);
        let notice = notice(&found, Carrier::Pod, &Key::new("ns", "web")).unwrap();
        assert_eq!(
            notice.note,
            "metadata.labels: \"box.com/x\" is unknown and has no effect: remove it, or use a key outside of box.com/; \
             metadata.annotations: \"box.com/restart-on-renewal\" has no effect on a Pod: write it as annotation of a \
             Deployment, a StatefulSet or a DaemonSet, not of its pod template"
        );
        assert_eq!(notice.regarding.uid.as_deref(), Some("u"));
    }

    #[test]
    fn an_object_without_such_entries_or_that_is_being_deleted_gets_no_event() {
        for meta in [
            json!({}),
            json!({"annotations": {"a": "b"}}),
            json!({"annotations": {"box.com/x": "b"}, "deletionTimestamp": "2030-01-01T00:00:00Z"}),
        ] {
            assert!(ignored(Carrier::Pod, meta.clone()).is_empty(), "{meta}");
        }
        let fine = json!({"annotations": {"box.com/rotate-now": "force"}});
        let fine = ignored(Carrier::Secret, fine);
        let key = Key::new("pki-operator", "ca");
        assert_eq!(notice(&fine, Carrier::CaSecret, &key), None);
    }

    #[test]
    fn an_event_about_a_namespace_goes_into_it() {
        let found = ignored(
            Carrier::Namespace,
            json!({"labels": {"box.com/trust-bundle": "yes"}}),
        );
        let notice = notice(&found, Carrier::Namespace, &Key::new("", "team-a")).unwrap();
        assert_eq!(notice.regarding.namespace.as_deref(), Some("team-a"));
        assert_eq!(notice.regarding.name.as_deref(), Some("team-a"));
    }

    #[test]
    fn events_are_limited_in_each_namespace_and_in_all() {
        let fault = || ignored(Carrier::Pod, json!({"labels": {"box.com/x": ""}}));
        let pods = |namespace: usize, count: usize| {
            (0..count).map(move |pod| {
                let key = Key::new(format!("ns-{namespace:03}"), format!("pod-{pod:03}"));
                (Carrier::Pod, key, fault())
            })
        };
        let counts_of = |found| -> BTreeMap<String, usize> {
            let mut counts = BTreeMap::new();
            for notice in notices(found) {
                *counts
                    .entry(notice.regarding.namespace.unwrap())
                    .or_default() += 1;
            }
            counts
        };
        let mut found: Vec<_> = pods(0, 150).chain(pods(1, 3)).collect();
        found.reverse();
        let first = notices(found.clone()).into_iter();
        let first: Vec<_> = first.filter_map(|it| it.regarding.name).collect();
        assert!(first.contains(&"pod-099".to_owned()) && !first.contains(&"pod-100".to_owned()));
        let counts: Vec<_> = counts_of(found).into_values().collect();
        assert_eq!(counts, [MAX_PER_NAMESPACE, 3]);
        // Where there are too many in all, no namespace is left out for the sake of those before
        // it.
        let all = (0..40).flat_map(|namespace| pods(namespace, 150)).collect();
        let counts: Vec<_> = counts_of(all).into_values().collect();
        assert_eq!(counts, [MAX_EVENTS / 40; 40]);
    }
}
