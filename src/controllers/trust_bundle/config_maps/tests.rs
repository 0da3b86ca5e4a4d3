use super::*;
use crate::controllers::trust_bundle::copy::{Verdict, judge};
use crate::controllers::trust_bundle::labels;
use jiff::SignedDuration;
use jiff::Timestamp;
use pki_certs::Authority;
use pki_certs::Trust;
use serde_json::{Value, json};

#[test]
fn a_namespace_asks_with_each_spelling_of_true() {
    let namespace = |value: &str| -> PartialObjectMeta<Namespace> {
        let labels = json!({ LABEL: value });
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}})).unwrap()
    };
    let a = || ("a".to_owned(), false);
    for (value, is_asking) in [
        ("true", true),
        ("True", true),
        ("1", true),
        ("false", false),
        ("yes", false),
        ("", false),
    ] {
        let listed = asking_now(Event::InitApply(namespace(value)));
        let changed = asking_now(Event::Apply(namespace(value)));
        if is_asking {
            assert!(
                matches!(listed, Some(Event::InitApply(it)) if it == a()),
                "{value}"
            );
            assert!(
                matches!(changed, Some(Event::Apply(it)) if it == a()),
                "{value}"
            );
        } else {
            assert!(listed.is_none(), "{value}");
            assert!(
                matches!(changed, Some(Event::Delete(it)) if it == a()),
                "{value}"
            );
        }
    }
    let gone = asking_now(Event::Delete(namespace("true")));
    assert!(matches!(gone, Some(Event::Delete(it)) if it == a()));
}

#[test]
fn a_copy_is_repaired_where_it_may_be() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let authority = Authority::generate("CA", SignedDuration::from_hours(100), now).unwrap();
    let trust = Trust::of([authority.ca()]);
    let judge = |labels: Value, more: Value| {
        let mut stored = json!({"metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": labels,
            "managedFields": [{"manager": "pki-operator"}]}});
        for (key, value) in more.as_object().unwrap() {
            stored[key] = value.clone();
        }
        judge(&serde_json::from_value(stored).unwrap(), &trust)
    };
    let change = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "data": {"ca.crt": trust.pem()},
        "binaryData": {"ca.crt": null}});
    let stale = || Verdict::Outdated(change.clone());
    let pem = trust.pem();
    for (more, expected) in [
        (json!({"data": {"ca.crt": pem}}), Verdict::Current),
        (
            json!({"data": {"ca.crt": pem, "theirs": ""}}),
            Verdict::Current,
        ),
        (
            json!({"data": {"ca.crt": pem}, "immutable": true}),
            Verdict::Current,
        ),
        (json!({"data": {"ca.crt": "theirs"}}), stale()),
        (json!({"data": {"ca.crt": format!("{pem}{pem}")}}), stale()),
        (json!({"binaryData": {"ca.crt": "AAAA"}}), stale()),
        (json!({}), stale()),
        (
            json!({"data": {"ca.crt": "theirs"}, "immutable": true}),
            Verdict::Immutable,
        ),
    ] {
        assert_eq!(judge(json!(labels()), more.clone()), expected, "{more}");
        assert_eq!(judge(json!({}), more), Verdict::Foreign);
    }
}

#[test]
fn the_event_on_a_config_map_in_the_way_has_the_remedy() {
    let found = Found {
        uid: Some("u".into()),
        version: None,
        is_ours: false,
        is_going: false,
    };
    let notice = about_held(
        "app1",
        "pki-trust-bundle",
        &found,
        &["a".into(), "b/c".into()],
    );
    assert_eq!(
        notice.note,
        "ConfigMap app1/pki-trust-bundle does not hold the CA bundle, is immutable, and its deletion waits for its finalizers \
         [a, b/c]: remove those, and the operator makes it again"
    );
    assert_eq!(notice.regarding.uid.as_deref(), Some("u"));
    let notice = about_foreign("app1", "pki-trust-bundle", found);
    assert_eq!(
        notice.note,
        "ConfigMap app1/pki-trust-bundle exists and is not the operator's, so the operator does not change it and it does not \
         follow the CA: delete it to get the CA bundle there, or remove the label box.com/trust-bundle from the namespace"
    );
    assert_eq!(notice.regarding.uid.as_deref(), Some("u"));
}
