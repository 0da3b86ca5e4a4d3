use super::*;
use crate::api::Pki;
use crate::k8s::scope::Scope;
use crate::store::cached_pki::KnownPki;
use futures::channel::mpsc::UnboundedReceiver;
use kube::core::DeserializeGuard;
use serde_json::json;

fn pki(name: &str, uid: &str, version: u32, generation: i64) -> Pki {
    let pki = json!({
        "apiVersion": "box.com/v1", "kind": "Pki",
        "metadata": {
            "namespace": "ns", "name": name, "uid": uid, "resourceVersion": version.to_string(),
            "generation": generation
        },
        "spec": {"serviceName": "app1"}
    });
    serde_json::from_value(pki).unwrap()
}

/// The Pkis that were triggered, and the generation that the cache shows of each,
/// if it is there.
fn looks(cache: &Cache, triggers: &mut UnboundedReceiver<Key>) -> Vec<(String, Option<i64>)> {
    let keys = std::iter::from_fn(|| triggers.try_recv().ok());
    let look = |key: Key| {
        let shown = cache.pki(&key).map(|pki| pki.meta().generation.unwrap());
        (key.name.to_string(), shown)
    };
    keys.map(look).collect()
}

#[test]
fn a_pki_that_a_list_brings_or_has_no_more_is_looked_at() {
    let (cache, _) = Cache::empty(Scope::default(), Arc::default());
    let (mut triggers, mut affected) = (cache.triggers(), Vec::new());
    let (a, b) = (|| pki("a", "a", 1, 1).into(), || pki("b", "b", 1, 1).into());
    for (event, looked_at) in [
        (Event::Init, None),
        (Event::InitDone, None),
        (Event::Apply(a()), Some(("a", Some(1)))),
        (Event::Init, None),
        (Event::InitApply(a()), None),
        (Event::InitApply(b()), None),
        (Event::InitDone, Some(("b", Some(1)))),
        (Event::Init, None),
        (Event::InitApply(b()), None),
        (Event::InitDone, Some(("a", None))),
        (Event::Delete(b()), Some(("b", None))),
    ] {
        let what = format!("{event:?}");
        cache.apply_pki(event, &mut affected);
        let looked_at = looked_at.map(|(name, shown)| (name.to_owned(), shown));
        let looks = looks(&cache, &mut triggers);
        assert_eq!(looks, Vec::from_iter(looked_at), "{what}");
    }
}

#[test]
fn what_was_written_is_known_at_once_and_until_something_newer_comes() {
    let (cache, _) = Cache::empty(Scope::default(), Arc::default());
    let version = || {
        let known = cache.pki(&Key::new("ns", "a"));
        known.map(|known| known.resource_version().unwrap())
    };
    let deliver = |event| cache.apply_pki(event, &mut Vec::new());
    let applied = |version| deliver(Event::Apply(pki("a", "u", version, 1).into()));
    let listed = |version| {
        deliver(Event::Init);
        deliver(Event::InitApply(pki("a", "u", version, 1).into()));
        deliver(Event::InitDone);
    };
    cache.apply_own_write(pki("a", "u", 10, 1));
    assert_eq!(version(), None, "it is not there, or no more");
    applied(9);
    cache.apply_own_write(pki("a", "u", 10, 1));
    assert_eq!(version().as_deref(), Some("10"));
    applied(9);
    assert_eq!(version().as_deref(), Some("10"), "the watch is behind");
    listed(9);
    assert_eq!(version().as_deref(), Some("10"), "the list is, too");
    cache.apply_own_write(pki("a", "u", 8, 1));
    assert_eq!(version().as_deref(), Some("10"), "the write was before");
    applied(10);
    assert_eq!(version().as_deref(), Some("10"));
    cache.discard_own_write(&Key::new("ns", "a"));
    assert_eq!(
        version().as_deref(),
        Some("10"),
        "the watch has delivered it"
    );
    cache.apply_own_write(pki("a", "before", 101, 1));
    assert_eq!(version().as_deref(), Some("10"), "it was made anew");
    deliver(Event::Delete(pki("a", "u", 11, 1).into()));
    cache.apply_own_write(pki("a", "u", 12, 1));
    assert_eq!(version(), None, "it is gone");
}

#[test]
fn what_the_watch_tells_counts_also_after_the_cluster_was_restored_from_a_backup() {
    let (cache, _) = Cache::empty(Scope::default(), Arc::default());
    let version = || cache.pki(&Key::new("ns", "a"))?.resource_version();
    let deliver = |event| cache.apply_pki(event, &mut Vec::new());
    for (event, shown) in [
        (Event::Apply(pki("a", "u", 100, 1)), "100"),
        (Event::Apply(pki("a", "u", 7, 1)), "7"),
        (Event::Apply(pki("a", "u", 100, 1)), "100"),
        (Event::InitApply(pki("a", "u", 7, 1)), "7"),
    ] {
        deliver(map(event, KnownPki::from));
        assert_eq!(version().as_deref(), Some(shown));
    }
    let doubted = || {
        cache.discard_own_write(&Key::new("ns", "a"));
        version()
    };
    cache.apply_own_write(pki("a", "u", 99, 1));
    cache.apply_own_write(pki("a", "u", 100, 1));
    assert_eq!(version().as_deref(), Some("100"));
    assert_eq!(
        doubted().as_deref(),
        Some("7"),
        "nothing was delivered since"
    );
    cache.apply_own_write(pki("a", "u", 100, 1));
    deliver(Event::Apply(pki("a", "u", 8, 1).into()));
    assert_eq!(version().as_deref(), Some("100"), "it seems to be behind");
    assert_eq!(doubted().as_deref(), Some("8"), "a conflict returned to it");
    deliver(Event::Apply(pki("a", "u", 9, 1).into()));
    assert_eq!(version().as_deref(), Some("9"));
}

#[test]
fn a_policy_makes_new_rules_when_its_spec_changes_and_not_when_its_status_does() {
    let (cache, mut writer) = Cache::empty(Scope::default(), Arc::default());
    let policy = |names: &[&str], generation: i64, admitted: i64| {
        let policy = json!({
            "apiVersion": "box.com/v1", "kind": "PkiPolicy",
            "metadata": {"name": "p", "uid": "u", "generation": generation},
            "spec": {"serviceNames": names}, "status": {"admitted": admitted}
        });
        Event::Apply(DeserializeGuard(
            Ok(serde_json::from_value(policy).unwrap()),
        ))
    };
    for (event, is_change) in [
        (policy(&["a"], 1, 0), true),
        (policy(&["a"], 1, 1), false),
        (policy(&["b"], 2, 1), true),
    ] {
        let before = cache.rules();
        cache.apply_policy(&event, &mut writer, &Arc::default());
        assert_ne!(Arc::ptr_eq(&before, &cache.rules()), is_change, "{event:?}");
        let known = cache.policies.state();
        assert!(
            known[0]
                .0
                .as_ref()
                .is_ok_and(|policy| policy.status.is_some())
        );
    }
}
