//! Which Pki may write a Secret that several name: the one whose it is already, else the oldest, then the first by name.
//!
//! Whose a Secret is already, only the Secret itself can tell ([`crate::reconcile::secret::owner`]): a Pki that is edited
//! to name a Secret in use must not take it away from the Pki whose pods run with it, were it ten times older. This
//! module knows the rest: who claims what, and since when.

use crate::api::{READY, StoredPki};
use crate::index::{BySecret, Change, Key, NamesSecrets};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, LazyLock};

/// What is kept of a Pki, to arbitrate and to tell whether a change of it is worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    key: Key,
    created: Timestamp,
    /// `None` for an object that cannot be read; it claims nothing.
    secret: Option<String>,
    version: Version,
    ready: bool,
}

/// The part of a Pki that its author edits. Status is not in it: the operator's own writes are no news to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    /// A hash of labels and annotations: rules of policies may read them.
    metadata: u64,
    deleting: bool,
}

impl From<StoredPki> for Claim {
    fn from(stored: StoredPki) -> Self {
        let pki = stored.0.as_ref().ok();
        let meta = stored.meta();
        Self {
            key: Key::of(&stored),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::MAX, |time| time.0),
            secret: pki.map(|pki| pki.secret_name().to_owned()),
            version: Version {
                uid: meta.uid.clone(),
                generation: meta.generation,
                metadata: hash((stored.labels(), stored.annotations())),
                deleting: meta.deletion_timestamp.is_some(),
            },
            ready: pki
                .and_then(|pki| pki.condition(READY))
                .is_some_and(|ready| {
                    ready.status == "True" && ready.observed_generation == meta.generation
                }),
        }
    }
}

/// With keys of this process, so that nobody can choose two values that have the same hash.
fn hash(value: impl Hash) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(value)
}

impl Claim {
    /// Whether this is the Pki of this UID, and it is here to stay.
    pub fn lives_as(&self, uid: &str) -> bool {
        self.version.uid.as_deref() == Some(uid) && !self.version.deleting
    }
}

impl NamesSecrets for Claim {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secret
            .as_deref()
            .filter(|_| !self.version.deleting)
            .into_iter()
    }
}

/// A Pki whose keystores have their passwords in other Secrets.
#[derive(Debug, PartialEq, Eq)]
pub struct Reader {
    key: Key,
    secrets: Vec<String>,
}

impl Reader {
    /// `None` if it needs no password.
    pub fn of(stored: &StoredPki) -> Option<Self> {
        let outputs = stored.0.as_ref().ok()?.spec.outputs.as_ref()?;
        let keystores = outputs.pkcs12.iter().chain(&outputs.jks);
        let secrets: Vec<_> = keystores
            .map(|keystore| keystore.password_secret_ref.name.clone())
            .collect();
        (!secrets.is_empty()).then(|| Self {
            key: Key::of(stored),
            secrets,
        })
    }
}

impl NamesSecrets for Reader {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(String::as_str)
    }
}

/// The Pki that may write the Secret as long as it is nobody's.
pub fn winner<'a>(claims: &'a BySecret<Claim>, secret: &Key) -> Option<&'a Key> {
    let oldest = claims
        .naming(secret)
        .min_by_key(|claim| (claim.created, &claim.key));
    oldest.map(|claim| &claim.key)
}

/// The other Pki that this one would lose the Secret to, if it is stored as it is: the Secret is the other's already, by all
/// that is known, or its claim is older.
pub fn foreseen_winner<'a>(
    claims: &'a BySecret<Claim>,
    pki: &Key,
    secret: &Key,
) -> Option<&'a Key> {
    let holds = |claim: &&Arc<Claim>| claim.ready;
    let holder = claims.naming(secret).find(holds).map(|claim| &claim.key);
    holder
        .or_else(|| winner(claims, secret))
        .filter(|winner| *winner != pki)
}

/// The Pkis to look at after this change of one of them: itself when its author edited or deleted it, and all that
/// claim what it claimed or claims when that has changed. Also itself when it is no longer ready: a pod that came
/// while it still seemed so has not been told.
pub fn affected(claims: &BySecret<Claim>, change: &Change<Claim>) -> Vec<Key> {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let mut keys = Vec::new();
    let is_edited = before.map(|claim| &claim.version) != after.map(|claim| &claim.version);
    let is_unready =
        before.is_some_and(|claim| claim.ready) && after.is_some_and(|claim| !claim.ready);
    if is_edited || is_unready {
        keys.extend(after.or(before).map(|claim| claim.key.clone()));
    }
    let claimed = |claim: Option<&Claim>| claim.and_then(|c| c.secrets().next().map(str::to_owned));
    if claimed(before) != claimed(after) {
        for secret in change.secrets() {
            keys.extend(claims.naming(&secret).map(|claim| claim.key.clone()));
        }
        keys.sort_unstable();
        keys.dedup();
    }
    keys
}

/// The Pkis that name this Secret: as theirs, or for a password.
pub fn naming<T: NamesSecrets>(index: &BySecret<T>, secret: &Key) -> Vec<Key> {
    index
        .naming(secret)
        .map(|user| user.key().clone())
        .collect()
}

/// The Pkis that claim this Secret and have something to tell the pods that wait for it.
pub fn unready_claimants(claims: &BySecret<Claim>, secret: &Key) -> Vec<Key> {
    claims
        .naming(secret)
        .filter(|claim| !claim.ready)
        .map(|claim| claim.key.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::DeserializeGuard;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn stored(name: &str, secret: &str, second: u8, generation: i64) -> StoredPki {
        let pki = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"namespace": "ns", "name": name, "generation": generation, "uid": name,
                "creationTimestamp": format!("2030-01-01T00:00:{second:02}Z")},
            "spec": {"serviceName": "app", "secretName": secret}
        }));
        DeserializeGuard(Ok(pki.unwrap()))
    }

    fn names(keys: &[Key]) -> Vec<&str> {
        keys.iter().map(|key| &*key.name).collect()
    }

    #[test]
    fn the_oldest_wins_then_the_first_by_name() {
        let mut claims = BySecret::default();
        let secret = Key::new("ns", "s");
        for (name, second) in [("c", 2), ("b", 1), ("a", 1)] {
            claims.apply(Event::Apply(stored(name, "s", second, 1).into()));
        }
        assert_eq!(&*winner(&claims, &secret).unwrap().name, "a");
        claims.apply(Event::Delete(stored("a", "s", 1, 1).into()));
        assert_eq!(&*winner(&claims, &secret).unwrap().name, "b");
        assert_eq!(winner(&claims, &Key::new("other", "s")), None);
    }

    #[test]
    fn rivals_are_looked_at_when_a_claim_comes_or_goes() {
        let mut claims = BySecret::default();
        claims.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        let change = claims.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        assert_eq!(names(&affected(&claims, &change[0])), ["a", "b"]);
        let change = claims.apply(Event::Apply(stored("a", "t", 1, 2).into()));
        assert_eq!(names(&affected(&claims, &change[0])), ["a", "b"]);
        let change = claims.apply(Event::Delete(stored("b", "s", 2, 1).into()));
        assert_eq!(
            names(&affected(&claims, &change[0])),
            ["b"],
            "so that what is kept of it is dropped"
        );
    }

    #[test]
    fn an_edit_concerns_its_own_pki_and_so_does_the_loss_of_readiness() {
        let mut claims = BySecret::default();
        claims.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        claims.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        let change = claims.apply(Event::Apply(stored("a", "s", 1, 2).into()));
        assert_eq!(names(&affected(&claims, &change[0])), ["a"]);

        let mut ready = stored("a", "s", 1, 2);
        ready.0.as_mut().unwrap().status = serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": "True", "observedGeneration": 2, "reason": "Issued", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z"
        }]})).unwrap();
        let change = claims.apply(Event::Apply(ready.into()));
        assert!(affected(&claims, &change[0]).is_empty());
        assert_eq!(
            names(&unready_claimants(&claims, &Key::new("ns", "s"))),
            ["b"]
        );
        let change = claims.apply(Event::Apply(stored("a", "s", 1, 2).into()));
        assert_eq!(names(&affected(&claims, &change[0])), ["a"]);
    }

    #[test]
    fn an_annotation_or_label_is_an_edit_and_a_finalizer_is_none() {
        let mut claims = BySecret::default();
        let mut labelled = stored("a", "s", 1, 1);
        labelled.0.as_mut().unwrap().metadata.labels = Some([("team".into(), "a".into())].into());
        claims.apply(Event::Apply(labelled.into()));
        let change = claims.apply(Event::Apply(stored("a", "s", 1, 1).into()));
        assert_eq!(
            names(&affected(&claims, &change[0])),
            ["a"],
            "a rule may read it"
        );
        let mut finalized = stored("a", "s", 1, 1);
        let metadata = &mut finalized.0.as_mut().unwrap().metadata;
        metadata.finalizers = Some(vec!["box.com/keep-secret".into()]);
        assert!(claims.apply(Event::Apply(finalized.into())).is_empty());
        let mut annotated = stored("a", "s", 1, 1);
        let metadata = &mut annotated.0.as_mut().unwrap().metadata;
        metadata.annotations = Some([("box.com/renew-now".into(), String::new())].into());
        let change = claims.apply(Event::Apply(annotated.into()));
        assert_eq!(names(&affected(&claims, &change[0])), ["a"]);
    }

    #[test]
    fn a_pki_that_is_going_claims_nothing() {
        let mut claims = BySecret::default();
        let mut going = stored("a", "s", 1, 1);
        going.0.as_mut().unwrap().metadata.deletion_timestamp =
            serde_json::from_value(json!("2030-01-02T00:00:00Z")).unwrap();
        claims.apply(Event::Apply(going.into()));
        claims.apply(Event::Apply(stored("b", "s", 2, 1).into()));
        assert_eq!(&*winner(&claims, &Key::new("ns", "s")).unwrap().name, "b");
        let claim = |name| claims.get(&Key::new("ns", name)).unwrap();
        assert!(!claim("a").lives_as("a"), "it is going");
        assert!(claim("b").lives_as("b") && !claim("b").lives_as("a"));
    }

    #[test]
    fn a_pki_is_found_by_the_secrets_of_its_passwords() {
        let with = |outputs: serde_json::Value| {
            let mut stored = stored("a", "s", 1, 1);
            stored.0.as_mut().unwrap().spec.outputs = serde_json::from_value(outputs).unwrap();
            stored
        };
        let store = |name: &str| json!({ "passwordSecretRef": { "name": name } });
        for outputs in [
            json!(null),
            json!({}),
            json!({ "combinedPem": true, "derKey": true }),
        ] {
            assert_eq!(Reader::of(&with(outputs)), None);
        }
        let mut readers = BySecret::default();
        for (outputs, found) in [
            (json!({ "pkcs12": store("p") }), [true, false]),
            (json!({ "jks": store("j") }), [false, true]),
            (
                json!({ "pkcs12": store("p"), "jks": store("j") }),
                [true, true],
            ),
            (json!({}), [false, false]),
        ] {
            readers.apply_some(&Event::Apply(with(outputs)), Reader::of);
            let is_found = |name| !naming(&readers, &Key::new("ns", name)).is_empty();
            assert_eq!([is_found("p"), is_found("j")], found);
            assert!(!is_found("s"), "its own Secret is no password");
            assert_eq!(naming(&readers, &Key::new("other", "p")), []);
        }
    }

    #[test]
    fn whoever_has_a_certificate_in_the_secret_is_foreseen_to_keep_it() {
        let mut claims = BySecret::default();
        let secret = Key::new("ns", "s");
        let foreseen = |claims: &BySecret<Claim>, name: &str| {
            let own = Key::new("ns", name);
            foreseen_winner(claims, &own, &secret).map(|key| key.name.clone())
        };
        assert_eq!(foreseen(&claims, "a"), None, "it will be the first");
        claims.apply(Event::Apply(stored("old", "s", 1, 1).into()));
        assert_eq!(foreseen(&claims, "old"), None);
        assert_eq!(foreseen(&claims, "a").as_deref(), Some("old"));
        let mut ready = stored("young", "s", 2, 1);
        ready.0.as_mut().unwrap().status = serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": "True", "observedGeneration": 1, "reason": "PkiReady", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z"
        }]})).unwrap();
        claims.apply(Event::Apply(ready.into()));
        assert_eq!(foreseen(&claims, "old").as_deref(), Some("young"));
        assert_eq!(foreseen(&claims, "young"), None);
    }
}
