//! The status of each [`PkiPolicy`]: whether its rules mean something, how many Pkis it admits, and
//! how many of its namespaces nobody admits.
//!
//! [`statuses`] is pure; the leader [keeps](run) them written, a moment after something has
//! changed.

use crate::api::conditions::{MAX_CONDITION_MESSAGE_BYTES, transition_time};
use crate::api::{Pki, PkiPolicy, PkiPolicyStatus};
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch};
use crate::policy::{RuleBook, faults};
use crate::store::Cache;
use crate::util::text;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The type of the condition of a policy.
pub const VALID: &str = "Valid";

/// Minimum pause between two counts.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause is at least this many times as long as the count took.
const PAUSE_FACTOR: u32 = 100;
/// Maximum pause, also after failures.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Keeps the statuses of all policies, for as long as it is polled.
pub async fn run(client: Client, cache: Arc<Cache>) {
    cache.synced().await;
    let policies = Api::<Lenient<PkiPolicy>>::all(client);
    let mut pause = PAUSE;
    loop {
        let begin = Instant::now();
        let counted = cache.clone();
        let count = tokio::task::spawn_blocking(move || changed(&counted, Timestamp::now()));
        let counted = count.await.unwrap_or_else(|error| {
            tracing::error!(%error, "failed to count the Pkis of each policy");
            Vec::new()
        });
        let took = begin.elapsed();
        if write_all(&policies, counted).await {
            pause = PAUSE;
            cache.verdicts_changed().await;
        } else {
            pause = MAX_PAUSE.min(pause * 2);
        }
        tokio::time::sleep(pause.max(MAX_PAUSE.min(took * PAUSE_FACTOR))).await;
    }
}

/// Writes the statuses; returns whether all that can be written was.
async fn write_all(
    policies: &Api<Lenient<PkiPolicy>>,
    statuses: Vec<(PkiPolicy, PkiPolicyStatus)>,
) -> bool {
    let mut is_written = true;
    for (policy, status) in statuses {
        let mut change = json!({ "status": status });
        patch::bind(&mut change, &policy);
        let (name, change) = (policy.name_any(), Patch::Merge(&change));
        match policies.patch_status(&name, &patch::patch(), &change).await {
            Ok(_) => {}
            Err(error) if api_error::is_not_found(&error) => {}
            // The policy has changed, or the watch is behind.
            Err(error) if api_error::is_conflict(&error) => is_written = false,
            Err(error) => {
                tracing::warn!(policy = name, %error, "failed to write the status of the PkiPolicy; retrying");
                is_written = false;
            }
        }
    }
    is_written
}

/// The policies whose status is not what it should be, and what it should be.
fn changed(cache: &Cache, now: Timestamp) -> Vec<(PkiPolicy, PkiPolicyStatus)> {
    let stored = cache.policies.state();
    let policies = stored.iter().filter_map(|policy| policy.0.as_ref().ok());
    let rules = cache.rules();
    let statuses = statuses(&rules, policies, cache.readable_pkis(), now);
    let changed = statuses.filter(|(policy, status)| policy.status.as_ref() != Some(status));
    changed
        .map(|(policy, status)| (policy.clone(), status))
        .collect()
}

/// The status of each of these policies, of which the rule book is made.
pub fn statuses<'a>(
    rules: &RuleBook,
    policies: impl Iterator<Item = &'a PkiPolicy>,
    pkis: impl Iterator<Item = Pki>,
    now: Timestamp,
) -> impl Iterator<Item = (&'a PkiPolicy, PkiPolicyStatus)> {
    let mut counts = HashMap::<&str, (i64, i64)>::new();
    for pki in pkis.filter(|pki| pki.metadata.deletion_timestamp.is_none()) {
        if let Some(policy) = rules.admits(&pki) {
            counts.entry(policy).or_default().0 += 1;
            continue;
        }
        let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
        for policy in rules.policies_for(namespace) {
            counts.entry(policy).or_default().1 += 1;
        }
    }
    policies.map(move |policy| {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let (admitted, refused) = counts.get(name).copied().unwrap_or_default();
        let status = PkiPolicyStatus {
            conditions: vec![valid(policy, rules, now)],
            observed_generation: policy.metadata.generation,
            admitted: Some(admitted),
            refused: Some(refused),
        };
        (policy, status)
    })
}

fn valid(policy: &PkiPolicy, rules: &RuleBook, now: Timestamp) -> Condition {
    let faults = faults(&policy.spec, &rules.settings);
    let (status, reason, message) = if faults.is_empty() {
        let message = "every rule is valid and can match".to_owned();
        ("True", "RulesCanMatch", message)
    } else {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let message = text::list("", &lines, MAX_CONDITION_MESSAGE_BYTES);
        ("False", "RulesCannotMatch", message)
    };
    let mut known = policy.status.iter().flat_map(|status| &status.conditions);
    let known = known.find(|known| known.type_ == VALID);
    Condition {
        type_: VALID.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: policy.metadata.generation,
        last_transition_time: transition_time(known, status, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn policy(name: &str, spec: &Value) -> PkiPolicy {
        let mut policy = PkiPolicy::new(name, serde_json::from_value(spec.clone()).unwrap());
        policy.metadata.generation = Some(1);
        policy
    }

    fn pki(namespace: &str, service: &str) -> Pki {
        let mut pki = Pki::new(
            service,
            serde_json::from_value(json!({ "serviceName": service })).unwrap(),
        );
        pki.metadata.namespace = Some(namespace.into());
        pki
    }

    #[test]
    fn a_policy_counts_what_it_admits_and_what_nobody_admits() {
        let mut policies = [
            policy("apps", &json!({ "serviceNames": ["app*"] })),
            policy(
                "team",
                &json!({ "serviceNames": ["app1", "web"], "namespaces": { "names": ["team"] } }),
            ),
            policy(
                "wrong",
                &json!({ "serviceNames": ["App"], "namespaces": { "names": ["nowhere"] } }),
            ),
        ];
        let pkis = [
            pki("team", "app1"),
            pki("team", "web"),
            pki("team", "db"),
            pki("other", "app2"),
            pki("other", "web"),
        ];
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let rules = RuleBook::new(Arc::default(), &policies);
        let counted: Vec<_> = statuses(&rules, policies.iter(), pkis.iter().cloned(), now)
            .map(|(policy, status)| {
                (
                    policy.name_any(),
                    status.admitted,
                    status.refused,
                    status.conditions[0].status.clone(),
                )
            })
            .collect();
        let row = |name: &str, admitted, refused, valid: &str| {
            (
                name.to_owned(),
                Some(admitted),
                Some(refused),
                valid.to_owned(),
            )
        };
        assert_eq!(
            counted,
            [
                row("apps", 2, 2, "True"),
                row("team", 1, 1, "True"),
                row("wrong", 0, 0, "False")
            ]
        );

        let (_, first) = statuses(&rules, policies.iter(), pkis.iter().cloned(), now)
            .last()
            .unwrap();
        assert!(
            first.conditions[0]
                .message
                .starts_with("spec.serviceNames[0]: \"App\" can never match")
        );
        policies[2].status = Some(first.clone());
        let later = now + jiff::SignedDuration::from_hours(1);
        let (_, second) = statuses(&rules, policies.iter(), pkis.iter().cloned(), later)
            .last()
            .unwrap();
        assert_eq!(first, second, "what is the same is not written again");
    }
}
