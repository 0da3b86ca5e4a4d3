//! Publishes a hint on pods that wait for a Secret whose name looks mistyped.
//!
//! A wrong hint costs more than a missing one. So there is one only for a Secret that does not
//! exist, that no Pki claims and that two sweeps miss, and only if the likeness can hardly be
//! chance.

use crate::controllers::pod_hints::waiting;
use crate::events::{Aspect, EventTemplate, Notice, Publisher, reference_to_pki};
use crate::k8s::object_key::Key;
use crate::store::cached_pod::SecretUser;
use crate::store::{Cache, claims};
use crate::util::text::{self, printable};
use rapidfuzz::distance::osa;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(15);

/// Limits of the Secrets that are compared in one namespace, and of their names, so that a sweep
/// takes little time.
const MAX_MISSING: usize = 50;
const MAX_PROVIDED: usize = 1000;
const MAX_NAME_BYTES: usize = 100;

/// Publishes for as long as it is polled. For the leader.
pub async fn follow(cache: Arc<Cache>, publisher: Publisher) {
    cache.synced().await;
    let mut before = Seen::new();
    loop {
        tokio::time::sleep(SWEEP).await;
        let mut missing = missing(&cache);
        before = keep_lasting(&mut missing, &before, |name| cache.namespace_uid(name));
        let (cache, publisher) = (cache.clone(), publisher.clone());
        // The sweep computes, and the leader has its Lease to renew.
        let sweep = tokio::task::spawn_blocking(move || {
            let provided = provided(&cache, &missing);
            for notice in hints(&missing, &provided) {
                publisher.offer(notice);
            }
        });
        let _ = sweep.await;
    }
}

/// The Secrets that a sweep misses, each with the UID of its namespace.
type Seen = HashMap<Key, Option<Arc<str>>>;

/// Keeps the Secrets that were missing before in the same namespace, which may have been made anew.
/// Returns all that are missing now.
fn keep_lasting(
    missing: &mut Missing,
    before: &Seen,
    uid: impl Fn(&str) -> Option<Arc<str>>,
) -> Seen {
    let seen = missing.keys();
    let seen: Seen = seen.map(|key| (key.clone(), uid(&key.namespace))).collect();
    missing.retain(|secret, _| {
        let known = before.get(secret);
        known.is_some() && known == seen.get(secret)
    });
    seen
}

/// The pods that cannot start without a Secret, by that Secret.
type Missing = BTreeMap<Key, Vec<Arc<SecretUser>>>;
/// The Secrets that Pkis provide, by namespace, and the Pki of each.
type Provided = BTreeMap<String, BTreeMap<String, Key>>;

/// The Secrets that are not there and that nobody will write, with the pods that wait for them.
fn missing(cache: &Cache) -> Missing {
    let mut awaited = cache.awaited();
    awaited.retain(|secret, awaited| {
        !awaited.is_claimed
            && secret.name.len() <= MAX_NAME_BYTES
            && !cache.rejections.concern(secret)
            && !waiting::is_explained(cache, secret)
    });
    let pods = awaited.into_iter();
    pods.map(|(secret, awaited)| (secret, awaited.pods))
        .collect()
}

/// The provided Secrets of the namespaces where one is missing.
fn provided(cache: &Cache, missing: &Missing) -> Provided {
    let mut provided = Provided::new();
    for secret in missing.keys() {
        provided.entry(secret.namespace.to_string()).or_default();
    }
    let pkis = cache.pkis.read();
    for secret in pkis
        .referenced()
        .filter(|secret| secret.name.len() <= MAX_NAME_BYTES)
    {
        let Some(of_namespace) = provided.get_mut(&*secret.namespace) else {
            continue;
        };
        let winner = claims::winner(&pkis, secret).filter(|_| cache.has_secret(secret));
        if let Some(pki) = winner.filter(|_| of_namespace.len() < MAX_PROVIDED) {
            of_namespace.insert(secret.name.to_string(), pki.clone());
        }
    }
    provided
}

fn hints(missing: &Missing, provided: &Provided) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (namespace, provided) in provided {
        let first = Key::new(namespace.clone(), "");
        let of_namespace = missing.range(first..).take(MAX_MISSING);
        for (secret, pods) in
            of_namespace.take_while(|(secret, _)| *secret.namespace == **namespace)
        {
            let meant = meant(&secret.name, provided.keys().map(String::as_str));
            if let Some((meant, pki)) = meant.and_then(|name| provided.get_key_value(name)) {
                let (template, pki) = (hint(secret, meant, pki), reference_to_pki(pki, None));
                notices.extend(template.for_users(&secret.name, pods, &pki));
            }
        }
    }
    notices
}

fn hint(secret: &Key, meant: &str, pki: &Key) -> EventTemplate {
    let (secret, meant) = (printable(&secret.name), printable(meant));
    let message = format!(
        "no Pki provides Secret {secret}: did you mean {meant}, which Pki {pki} provides? Write {meant} in the pod, or secretName: {secret} in the spec of the Pki"
    );
    EventTemplate::warning(Aspect::Name, "PkiSecretNotProvided", message)
}

/// The one of these names that was probably meant: one edit away, or two where the names are long
/// (an edit inserts, removes or changes a letter, or swaps two neighbours). Other numbers (app1 and
/// app2) and other short words between dashes are taken for meant.
fn meant<'a>(name: &str, provided: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = provided.filter_map(|other| {
        // Cheaper than to count the edits.
        if name.len().abs_diff(other.len()) > 2 || text::digits(name) != text::digits(other) {
            return None;
        }
        let edits = osa::distance(name.chars(), other.chars());
        let shorter = name.len().min(other.len());
        let may_be_typo = match edits {
            1 => shorter >= 6,
            2 => shorter >= 10,
            _ => false,
        };
        (may_be_typo && is_typo(name, other)).then_some((edits, other))
    });
    let mut near: Vec<_> = near.collect();
    near.sort_unstable();
    match near[..] {
        [(_, only)] => Some(only),
        [(first, nearest), (second, _), ..] if first < second => Some(nearest),
        _ => None,
    }
}

/// Whether two names differ by a typing error, and not as names of two things do.
fn is_typo(name: &str, other: &str) -> bool {
    const SEPARATORS: [char; 2] = ['-', '.'];
    let bare = |name: &str| name.replace(SEPARATORS, "");
    let split = |name| str::split(name, SEPARATORS).collect::<Vec<_>>();
    let (words, others) = (split(name), split(other));
    if words.len() != others.len() {
        return bare(name) == bare(other);
    }
    let mut pairs = words
        .iter()
        .zip(&others)
        .filter(|(word, other)| word != other);
    pairs.all(|(word, other)| is_typo_of_word(word, other))
}

/// Any edit of a long word; in a short one, which might be another word, only swapped neighbours.
fn is_typo_of_word(word: &str, other: &str) -> bool {
    let sorted = |word: &str| {
        let mut letters: Vec<_> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    word.len().min(other.len()) >= 4 || (word.len() >= 3 && sorted(word) == sorted(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_missing_for_a_while_in_one_namespace_and_not_in_two_of_a_name() {
        let secret = Key::new("ns", "tls");
        let missing = || Missing::from([(secret.clone(), Vec::new())]);
        let sweep = |before: &Seen, uid: &'static str| {
            let mut lasting = missing();
            let seen = keep_lasting(&mut lasting, before, |_| Some(uid.into()));
            (lasting.len(), seen)
        };
        let (count, first) = sweep(&Seen::new(), "1");
        assert_eq!(count, 0, "it may be about to be applied");
        assert_eq!(sweep(&first, "1").0, 1);
        let (count, anew) = sweep(&first, "2");
        assert_eq!(count, 0, "the namespace was made anew");
        assert_eq!(sweep(&anew, "2").0, 1);
    }

    #[test]
    fn a_slip_of_the_finger_is_recognized() {
        for (written, meant_by_it) in [
            ("app1-pik", "app1-pki"),
            ("app1pki", "app1-pki"),
            ("app1.pki", "app1-pki"),
            ("appp1-pki", "app1-pki"),
            ("fronted-tls", "frontend-tls"),
            ("forntned-tls", "frontend-tls"),
            ("payments-certificat", "payments-certificate"),
        ] {
            let provided = ["unlike", meant_by_it, "db"];
            let found = meant(written, provided.into_iter());
            assert_eq!(found, Some(meant_by_it), "{written}");
        }
    }

    #[test]
    fn what_could_be_chance_is_no_slip() {
        for (written, provided) in [
            ("app2-pki", "app1-pki"),
            ("app11-pki", "app1-pki"),
            ("web-a-pki", "web-b-pki"),
            ("frontend-pki", "frontend-a-pki"),
            ("dev-db-tls", "prd-db-tls"),
            ("dba", "dbb"),
            ("a", "b"),
            ("tls-1", "tls"),
            ("pay-ments-certificat", "payments-certificate"),
            ("frontend", "backends"),
            ("same-name", "same-name"),
        ] {
            assert_eq!(
                meant(written, [provided].into_iter()),
                None,
                "{written} {provided}"
            );
        }
    }

    #[test]
    fn of_two_that_are_as_near_neither_is_meant_and_else_the_nearer() {
        let found = |provided: &[&'static str]| meant("payment-tls", provided.iter().copied());
        assert_eq!(found(&["payments-tls", "paymint-tls"]), None);
        assert_eq!(
            found(&["payments-tls", "paymentsx-tls"]),
            Some("payments-tls")
        );
    }

    #[test]
    fn a_hint_names_both_secrets_and_the_pki_and_both_ways_out() {
        let [secret, pki] = ["app1-pik", "app1-pki"].map(|name| Key::new("ns", name));
        let template = hint(&secret, "app1-tls", &pki);
        assert_eq!(
            template.message,
            "no Pki provides Secret app1-pik: did you mean app1-tls, which Pki ns/app1-pki provides? Write app1-tls in \
             the pod, or secretName: app1-pik in the spec of the Pki"
        );
    }
}
