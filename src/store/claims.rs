//! The Pki that may write a Secret which several name: its owner, else the oldest, then the first
//! by name.
//!
//! The owner is found in the Secret itself ([`crate::controllers::pki::content::owner`]). A Pki
//! that is edited to name a Secret in use, however old the Pki is, must not take it away from the
//! Pki whose pods run with it. This module has the rest: the claims, and their age.

use crate::k8s::object_key::Key;
use crate::store::cached_pki::KnownPki;
use crate::store::secret_index::{Change, ReferencesSecrets as _, SecretIndex};
use std::sync::Arc;

/// The Pkis that claim this Secret.
pub fn claimants<'a>(
    pkis: &'a SecretIndex<KnownPki>,
    secret: &'a Key,
) -> impl Iterator<Item = &'a Arc<KnownPki>> {
    pkis.referencing(secret)
        .filter(|pki| pki.claims(&secret.name))
}

/// The Pki that may write the Secret as long as it is nobody's.
pub fn winner<'a>(pkis: &'a SecretIndex<KnownPki>, secret: &'a Key) -> Option<&'a Key> {
    oldest(pkis, secret).map(|pki| pki.key())
}

fn oldest<'a>(pkis: &'a SecretIndex<KnownPki>, secret: &'a Key) -> Option<&'a Arc<KnownPki>> {
    claimants(pkis, secret).min_by_key(|pki| (pki.created, pki.key()))
}

/// The other Pki that would keep this one from writing the Secret: it owns the Secret, by all that
/// is known, or its claim is older.
pub fn predicted_owner<'a>(
    pkis: &'a SecretIndex<KnownPki>,
    pki: &Key,
    secret: &'a Key,
) -> Option<&'a Key> {
    holder(pkis, secret)
        .map(|holder| holder.key())
        .filter(|holder| *holder != pki)
}

/// The Pki that has the Secret, by all that is known, or will have it.
pub fn holder<'a>(pkis: &'a SecretIndex<KnownPki>, secret: &'a Key) -> Option<&'a Arc<KnownPki>> {
    let ready = claimants(pkis, secret).find(|pki| pki.ready);
    ready.or_else(|| oldest(pkis, secret))
}

/// The Pkis to reconcile after a change of one of them: itself, when its author edited or deleted
/// it, and all that claim what it claimed or claims, when that has changed. Also itself, when it is
/// no longer ready: a pod that came before has no Event yet.
pub fn affected(pkis: &SecretIndex<KnownPki>, change: &Change<KnownPki>) -> Vec<Key> {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let mut keys = Vec::new();
    let is_edited = before.map(|pki| pki.edition) != after.map(|pki| pki.edition);
    let is_unready = before.is_some_and(|pki| pki.ready) && after.is_some_and(|pki| !pki.ready);
    if is_edited || is_unready {
        keys.extend(after.or(before).map(|pki| pki.key().clone()));
    }
    if before.and_then(KnownPki::claimed) != after.and_then(KnownPki::claimed) {
        for pki in before.into_iter().chain(after) {
            let secret = pki.claimed().map(|name| pki.key().beside(name));
            let others = secret
                .iter()
                .flat_map(|secret| claimants(pkis, secret).chain(former_holders(pkis, secret)));
            keys.extend(others.map(|pki| pki.key().clone()));
        }
        keys.sort_unstable();
        keys.dedup();
    }
    keys
}

/// The Pkis that claim this Secret and have an Event for the pods that wait for it.
pub fn unready_claimants(pkis: &SecretIndex<KnownPki>, secret: &Key) -> Vec<Key> {
    claimants(pkis, secret)
        .filter(|pki| !pki.ready)
        .map(|pki| pki.key().clone())
        .collect()
}

/// The Pkis that wrote this Secret before and write another one now.
pub fn former_holders<'a>(
    pkis: &'a SecretIndex<KnownPki>,
    secret: &'a Key,
) -> impl Iterator<Item = &'a Arc<KnownPki>> {
    pkis.referencing(secret)
        .filter(|pki| pki.wrote(&secret.name))
}

/// The Pki that has the name of this Secret and writes another one.
pub fn namesake<'a>(pkis: &'a SecretIndex<KnownPki>, secret: &Key) -> Option<&'a Arc<KnownPki>> {
    let namesake = pkis.get(secret)?;
    let claimed = namesake.claimed()?;
    (*claimed != secret.name).then_some(namesake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Pki;
    use crate::util::hash::digest;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn stored(name: &str, secret: &str, second: u8, generation: i64) -> Pki {
        let pki = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"namespace": "ns", "name": name, "generation": generation, "uid": name,
                "creationTimestamp": format!("2030-01-01T00:00:{second:02}Z")},
            "spec": {"serviceName": "app", "secretName": secret}
        }));
        pki.unwrap()
    }

    fn names(keys: &[Key]) -> Vec<&str> {
        keys.iter().map(|key| &*key.name).collect()
    }

    #[test]
    fn the_oldest_wins_then_the_first_by_name() {
        let mut pkis = SecretIndex::default();
        let secret = Key::new("ns", "s");
        for (name, second) in [("c", 2), ("b", 1), ("a", 1)] {
            pkis.apply(Event::Apply(stored(name, "s", second, 1).into()));
        }
        assert_eq!(&*winner(&pkis, &secret).unwrap().name, "a");
        pkis.apply(Event::Delete(stored("a", "s", 1, 1).into()));
        assert_eq!(&*winner(&pkis, &secret).unwrap().name, "b");
        assert_eq!(winner(&pkis, &Key::new("other", "s")), None);
    }

    #[test]
    fn rivals_are_looked_at_when_a_claim_comes_or_goes() {
        let mut pkis = SecretIndex::default();
        pkis.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        let change = pkis.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a", "b"]);
        let change = pkis.apply(Event::Apply(stored("a", "t", 1, 2).into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a", "b"]);
        let change = pkis.apply(Event::Delete(stored("b", "s", 2, 1).into()));
        assert_eq!(
            names(&affected(&pkis, &change[0])),
            ["b"],
            "so that what is kept of it is dropped"
        );
    }

    #[test]
    fn an_edit_concerns_its_own_pki_and_so_does_the_loss_of_readiness() {
        let mut pkis = SecretIndex::default();
        pkis.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        pkis.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        let change = pkis.apply(Event::Apply(stored("a", "s", 1, 2).into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a"]);

        let mut ready = stored("a", "s", 1, 2);
        ready.status = serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": "True", "observedGeneration": 2, "reason": "Issued", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z"
        }]})).unwrap();
        let change = pkis.apply(Event::Apply(ready.into()));
        assert!(affected(&pkis, &change[0]).is_empty());
        assert_eq!(
            names(&unready_claimants(&pkis, &Key::new("ns", "s"))),
            ["b"]
        );
        let change = pkis.apply(Event::Apply(stored("a", "s", 1, 2).into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a"]);
    }

    #[test]
    fn an_annotation_or_label_is_an_edit_and_a_finalizer_is_none() {
        let mut pkis = SecretIndex::default();
        let mut labelled = stored("a", "s", 1, 1);
        labelled.metadata.labels = Some([("team".into(), "a".into())].into());
        pkis.apply(Event::Apply(labelled.into()));
        let change = pkis.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        assert_eq!(
            names(&affected(&pkis, &change[0])),
            ["a"],
            "a rule may read it"
        );
        let mut finalized = stored("a", "s", 1, 1);
        let metadata = &mut finalized.metadata;
        metadata.finalizers = Some(vec!["box.com/keep-secret".into()]);
        let change = pkis.apply(Event::Apply(finalized.into()));
        assert!(affected(&pkis, &change[0]).is_empty());
        let mut annotated = stored("a", "s", 1, 1);
        let metadata = &mut annotated.metadata;
        metadata.annotations = Some([("box.com/renew-now".into(), String::new())].into());
        let change = pkis.apply(Event::Apply(annotated.into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a"]);
    }

    #[test]
    fn a_pki_that_is_going_claims_nothing() {
        let mut pkis = SecretIndex::default();
        let mut going = stored("a", "s", 1, 1);
        going.metadata.deletion_timestamp =
            serde_json::from_value(json!("2030-01-02T00:00:00Z")).unwrap();
        pkis.apply(Event::Apply(going.into()));
        pkis.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        assert_eq!(&*winner(&pkis, &Key::new("ns", "s")).unwrap().name, "b");
        let claim = |name| pkis.get(&Key::new("ns", name)).unwrap();
        assert!(!claim("a").is_live(digest("a")), "it is going");
        assert!(claim("b").is_live(digest("b")) && !claim("b").is_live(digest("a")));
    }

    #[test]
    fn a_pki_is_found_by_the_secrets_of_its_passwords_and_claims_none_of_them() {
        let with = |outputs: serde_json::Value| {
            let mut stored = stored("a", "s", 1, 1);
            stored.spec.outputs = serde_json::from_value(outputs).unwrap();
            stored
        };
        let store = |name: &str| json!({ "passwordSecretRef": { "name": name } });
        let mut pkis = SecretIndex::default();
        for (outputs, found) in [
            (json!(null), [false, false]),
            (json!({ "combinedPem": true }), [false, false]),
            (json!({ "pkcs12": store("p") }), [true, false]),
            (json!({ "jks": store("j") }), [false, true]),
            (
                json!({ "pkcs12": store("p"), "jks": store("j") }),
                [true, true],
            ),
            (json!({}), [false, false]),
        ] {
            pkis.apply(Event::Apply(with(outputs).into()));
            let count = |namespace, name| pkis.referencing(&Key::new(namespace, name)).count();
            let is_found = |name| count("ns", name) == 1;
            assert_eq!([is_found("p"), is_found("j")], found);
            assert!(is_found("s"), "it is its own");
            assert_eq!(count("other", "p"), 0);
            for (name, claimants_of_it) in [("s", 1), ("p", 0), ("j", 0)] {
                let secret = Key::new("ns", name);
                assert_eq!(claimants(&pkis, &secret).count(), claimants_of_it, "{name}");
            }
        }
    }

    #[test]
    fn a_pki_is_found_by_the_secrets_that_it_wrote_before_and_makes_way_for_who_claims_one() {
        let mut pkis = SecretIndex::default();
        let mut moved = stored("a", "new", 1, 2);
        let formers = json!({"formerSecrets": [{"name": "s"}, {"name": "new"}]});
        moved.status = serde_json::from_value(formers).unwrap();
        pkis.apply(Event::Apply(moved.into()));
        let secret = Key::new("ns", "s");
        let holders = |pkis: &SecretIndex<KnownPki>, name: &str| {
            let secret = Key::new("ns", name);
            former_holders(pkis, &secret).count()
        };
        assert_eq!((holders(&pkis, "s"), holders(&pkis, "new")), (1, 0));
        assert_eq!(claimants(&pkis, &secret).count(), 0);
        assert!(unready_claimants(&pkis, &secret).is_empty());
        let change = pkis.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        assert_eq!(names(&affected(&pkis, &change[0])), ["a", "b"]);
        let namesake = |name: &str| namesake(&pkis, &Key::new("ns", name)).is_some();
        assert!(namesake("a") && !namesake("new") && !namesake("other"));
    }

    #[test]
    fn whoever_has_a_certificate_in_the_secret_is_predicted_to_keep_it() {
        let mut pkis = SecretIndex::default();
        let secret = Key::new("ns", "s");
        let predicted = |pkis: &SecretIndex<KnownPki>, name: &str| {
            let own = Key::new("ns", name);
            predicted_owner(pkis, &own, &secret).map(|key| key.name.clone())
        };
        assert_eq!(predicted(&pkis, "a"), None, "it will be the first");
        pkis.apply(Event::Apply(stored("old", "s", 1, 1).into()));
        assert_eq!(predicted(&pkis, "old"), None);
        assert_eq!(predicted(&pkis, "a").as_deref(), Some("old"));
        let mut ready = stored("young", "s", 2, 1);
        ready.status = serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": "True", "observedGeneration": 1, "reason": "PkiReady", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z"
        }]})).unwrap();
        pkis.apply(Event::Apply(ready.into()));
        assert_eq!(predicted(&pkis, "old").as_deref(), Some("young"));
        assert_eq!(predicted(&pkis, "young"), None);
    }
}
