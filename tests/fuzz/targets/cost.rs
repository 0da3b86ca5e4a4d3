//! The steps of rules in CEL.

use super::{lossy, pki};
use pki_operator::api::Pki;
use pki_operator::policy::{RULE_STEPS, measure};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A small Pki, and the largest one.
static PKIS: LazyLock<[Pki; 2]> = LazyLock::new(|| {
    let label = "a".repeat(60);
    let name = |number| format!("{label}.{label}.{label}.{number:03}{label}.com");
    let uri = |number| format!("spiffe://example.com/{number:03}{}", "a".repeat(2000));
    let address = |number| format!("2001:db8:1111:2222:3333:4444:5555:{number:x}");
    let names: Vec<_> = (0..100).map(name).collect();
    let keyed = |bytes: usize| -> BTreeMap<_, _> {
        let key = |number| format!("{label}.example.com/{label}{number:03}");
        (0..100)
            .map(|number| (key(number), "v".repeat(bytes)))
            .collect()
    };
    let mut full = pki(
        "team-a",
        json!({
            "serviceName": "a".repeat(63), "dnsNames": names,
            "uris": (0..100).map(uri).collect::<Vec<_>>(),
            "ipAddresses": (1..101).map(address).collect::<Vec<_>>(),
            "secretTemplate": {"labels": keyed(63), "annotations": keyed(4096)},
        }),
    );
    full.metadata.labels = Some(keyed(63));
    full.metadata.annotations = Some(keyed(4096));
    [pki("team-a", json!({"serviceName": "app1"})), full]
});

/// Evaluates a rule. It takes at most the estimated steps; the estimate is highest for the largest
/// Pki; and no rule is admitted over the limit.
pub fn cost(data: &[u8]) {
    let expression = lossy(data);
    for pki in PKIS.iter() {
        let Some(steps) = measure(&expression, pki) else {
            return;
        };
        assert!(steps.taken <= steps.estimated, "{steps:?}: {expression}");
        assert!(steps.estimated <= steps.most, "{steps:?}: {expression}");
        assert!(steps.most <= RULE_STEPS, "{steps:?}: {expression}");
    }
}
