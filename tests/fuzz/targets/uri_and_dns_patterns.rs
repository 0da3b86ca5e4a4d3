//! Patterns of DNS names and of URIs: a line each for a pattern of names, a name, a pattern of
//! URIs, a URI, a namespace.

use super::{lossy, oracle, pki, policy, rule_book, settings};
use pki_operator::api::{Pki, PkiPolicy};
use pki_operator::policy::faults;
use serde_json::json;

/// Compares both kinds of pattern with the oracle's.
pub fn uri_and_dns_patterns(data: &[u8]) {
    let text = lossy(data);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (dns_pattern, name, uri_pattern, uri) = (next(), next(), next(), next());
    // What else a namespace is called is the API server's business.
    let namespace = Some(next()).filter(|line| oracle::is_label(line));
    let namespace = namespace.unwrap_or("team-a");
    of_names(dns_pattern, namespace, name);
    of_uris(uri_pattern, namespace, uri);
}

fn of_names(pattern: &str, namespace: &str, name: &str) {
    let policy = policy("p", json!({"serviceNames": ["a"], "dnsNames": [pattern]}));
    let folded = oracle::fold(name);
    let own = format!("a.{namespace}.svc");
    let is_own = folded == own || folded == format!("{own}.{}", oracle::CLUSTER_DOMAIN);
    let is_nobodys = oracle::is_internal(&folded) || oracle::is_api_server(&folded);
    let may_be = oracle::is_host_name(&folded) && !is_nobodys;
    let is_pod = oracle::is_host_name(&folded)
        && !oracle::is_api_server(&folded)
        && oracle::is_pod_of("a", namespace, &folded);
    let is_permitted = may_be && oracle::dns_pattern_permits(pattern, namespace, &folded);
    let is_match = is_permitted || is_pod;

    let asked = pki(namespace, json!({"serviceName": "a", "dnsNames": [name]}));
    let names = certified(&policy, &asked, |certificate| &certificate.dns_names);
    let expected = is_match && !is_own;
    let expected = (is_match || is_own).then(|| Vec::from_iter(expected.then_some(folded)));
    let further = names.map(|names| names[2..].to_vec());
    assert_eq!(further, expected, "{pattern:?} {namespace} {name:?}");

    if !faults(&policy.spec, &settings()).is_empty() {
        assert!(
            !is_permitted,
            "{pattern:?} has a fault, and permits {name:?}"
        );
        return;
    }
    let witness = oracle::fold(&oracle::expand(pattern, "n")).replace('*', "a");
    let asked = pki("n", json!({"serviceName": "a", "dnsNames": [witness]}));
    assert!(
        rule_book([&policy]).admits(&asked).is_some(),
        "{pattern:?} permits nothing, not even {witness}"
    );
}

fn of_uris(pattern: &str, namespace: &str, text: &str) {
    let policy = policy("p", json!({"serviceNames": ["a"], "uris": [pattern]}));
    let read = oracle::uri(text);
    let expected = read.filter(|uri| oracle::uri_pattern_permits(pattern, namespace, uri));

    let asked = pki(namespace, json!({"serviceName": "a", "uris": [text]}));
    let uris = certified(&policy, &asked, |certificate| &certificate.uris);
    assert_eq!(
        uris,
        expected.map(|uri| vec![uri]),
        "{pattern:?} {namespace} {text:?}"
    );

    if !faults(&policy.spec, &settings()).is_empty() {
        assert!(
            uris.is_none(),
            "{pattern:?} has a fault, and permits {text:?}"
        );
        return;
    }
    let witness = oracle::expand(pattern, "n").replace('*', "a");
    let asked = pki("n", json!({"serviceName": "a", "uris": [witness]}));
    assert!(
        rule_book([&policy]).admits(&asked).is_some(),
        "{pattern:?} permits nothing, not even {witness}"
    );
}

/// What of a certificate, if there may be one.
fn certified(
    policy: &PkiPolicy,
    asked: &Pki,
    what: impl Fn(&pki_certs::LeafRequest) -> &Vec<String>,
) -> Option<Vec<String>> {
    let rules = rule_book([policy]);
    let approved = rules.evaluate(asked).ok();
    assert_eq!(approved.is_some(), rules.admits(asked).is_some());
    approved.map(|approved| what(&approved.certificate).clone())
}
