//! A clock that jumps destroys nothing, and all heals when it is right again: on a Secret and a
//! state as they are stored.

use super::*;
use crate::api::Pki;
use crate::controllers::ca::placement;
use crate::controllers::ca::progress::RolloutCounter;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const YEAR: SignedDuration = SignedDuration::from_hours(8766);
const RETENTION: SignedDuration = SignedDuration::from_hours(720);

/// Secret and state as they are stored, one certificate in use, and all keys that ever signed.
struct Stage {
    secret: Value,
    map: Value,
    pki: Pki,
    keys: BTreeSet<String>,
    signer: Option<String>,
    /// Whether the clock is wrong for less than a step.
    is_brief: bool,
}

impl Stage {
    /// A CA that was made a year ago.
    fn new() -> Self {
        let ca = Authority::generate("ca", TEN_YEARS, now() - YEAR).unwrap();
        let secret = Secret {
            data: Some(crate::k8s::ca_secret::files(&ca)),
            ..Secret::default()
        };
        let mut pki = crate::api::tests::pki(json!({}));
        let trust = pki_certs::Trust::of([ca.ca()]);
        pki.status = serde_json::from_value(json!({
            "serialNumber": "01", "secretName": pki.secret_name(), "notAfter": now() + 90 * DAY,
            "issuerFingerprint": fingerprint(&ca), "trustFingerprint": trust.fingerprint(),
        }))
        .unwrap();
        Self {
            secret: json!(secret),
            map: json!({}),
            pki,
            keys: BTreeSet::new(),
            signer: None,
            is_brief: true,
        }
    }

    fn stored(&self) -> Secret {
        serde_json::from_value(self.secret.clone()).unwrap()
    }

    fn state(&self, time: Timestamp) -> Option<CaState> {
        let map: ConfigMap = serde_json::from_value(self.map.clone()).unwrap();
        map.data.as_ref()?;
        Some(CaState::read(&map, time).unwrap())
    }

    /// Looks as often as the controller does at this time, and checks that nothing was lost.
    fn reconcile(&mut self, time: Timestamp) {
        for _ in 0..10 {
            let is_changed = self.reconcile_once(time);
            self.check(time);
            if !is_changed {
                return;
            }
        }
        panic!("it does not come to rest at {time}");
    }

    fn reconcile_once(&mut self, time: Timestamp) -> bool {
        let secret = self.stored();
        let stored = placement::read(&secret, false, time);
        let found = evaluate(self.state(time), Some(stored), SECRET, time);
        let Ok(Evaluation {
            mut state, signer, ..
        }) = found
        else {
            return false;
        };
        if signer.is_ok() {
            let mut counter = RolloutCounter::new(&state, &TIMES, time);
            counter.count(&self.pki);
            let progress = counter.end();
            state = super::super::advance(state, &progress, &TIMES, time);
        }
        let before = self.map.clone();
        json_patch::merge(&mut self.map, &json!({ "data": state.data() }));
        self.signer = signer.as_ref().ok().map(fingerprint);
        let is_over = state.current.not_after() < time;
        if before != self.map {
            return true;
        }
        if signer.is_err() && !is_over {
            return false;
        }
        let outdated = outdated(&state, RETENTION);
        let change = placement::moved(&secret, &state, outdated, time).or_else(|| {
            let is_due = is_due(&state, None, &TIMES, time) && !placement::has_next(&secret);
            is_due.then(|| {
                let successor = Authority::generate("ca", TEN_YEARS, time).unwrap();
                placement::with_next(&successor, None)
            })
        });
        if let Some(mut change) = change {
            store(&mut change);
            json_patch::merge(&mut self.secret, &change);
            return true;
        }
        false
    }

    /// No key of a CA that ever signed is gone, and the root of the certificate in use is trusted.
    fn check(&mut self, time: Timestamp) {
        let secret = self.stored();
        let keys = secret.data.iter().flatten();
        let keys = keys.filter(|(name, _)| name.strip_suffix(".key").is_some());
        let keys: BTreeSet<_> = keys
            .map(|(_, key)| String::from_utf8(key.0.clone()).unwrap())
            .collect();
        let state = self.state(time).unwrap();
        let status = self.pki.status.as_ref().unwrap();
        let used = status.issuer_fingerprint.clone();
        let mut trusted: Vec<_> = state.trusted().map(|it| it.ca.fingerprint()).collect();
        trusted.push(state.current.fingerprint());
        let has_ended = status.not_after.as_ref().unwrap().0 < time;
        assert!(
            has_ended && !self.is_brief || trusted.contains(&used.as_deref().unwrap()),
            "{time}: the root in use is gone"
        );
        let next = crate::k8s::secret::file(&secret, "next.key").to_vec();
        let next = String::from_utf8(next).unwrap();
        assert!(self.keys.is_subset(&keys), "{time}: a key is gone");
        // A successor has signed nothing: it may be made anew.
        self.keys
            .extend(keys.into_iter().filter(|key| *key != next));
    }

    fn issuer(&self) -> String {
        let status = self.pki.status.as_ref().unwrap();
        status.issuer_fingerprint.clone().unwrap()
    }
}

/// As the API server stores what comes as text.
fn store(change: &mut Value) {
    let text = change.as_object_mut().unwrap().remove("stringData");
    for (name, content) in text.iter().filter_map(Value::as_object).flatten() {
        let content = ByteString(content.as_str().unwrap().as_bytes().to_vec());
        change["data"][name] = json!(content);
    }
}

#[test]
fn after_any_jump_of_the_clock_the_ca_that_signed_signs_again() {
    for (jump, lasts) in [
        (11 * YEAR, HOUR),
        (11 * YEAR, 3 * DAY),
        (YEAR * 25 / 3, HOUR),
        (-YEAR * 3 / 2, HOUR),
        (100 * DAY, 3 * DAY),
        (-200 * DAY, 3 * DAY),
        (2 * HOUR, HOUR),
        (-2 * HOUR, HOUR),
    ] {
        let mut scene = Stage::new();
        scene.is_brief = lasts < STEP;
        scene.reconcile(now());
        let before = scene.signer.clone();
        assert_eq!(before, Some(scene.issuer()), "{jump:#}");
        let wrong = now() + jump;
        for time in [wrong, wrong + lasts / 2, wrong + lasts] {
            scene.reconcile(time);
        }
        let right = now() + lasts;
        scene.reconcile(right);
        assert_eq!(scene.signer, before, "{jump:#}: at once");
        for day in 1..40 {
            scene.reconcile(right + day * DAY);
        }
        assert_eq!(scene.signer, before, "{jump:#}: and later");
        assert!(!placement::has_next(&scene.stored()), "{jump:#}");
    }
}

#[test]
fn a_clock_that_is_right_again_before_the_successor_is_moved_leaves_the_ca_that_signed() {
    for ahead in [3 * YEAR, 11 * YEAR] {
        let mut scene = Stage::new();
        scene.reconcile(now());
        let first = scene.signer.clone();
        let is_first = |scene: &Stage, time| {
            let state = scene.state(time).unwrap();
            Some(state.current.fingerprint()) == first.as_deref()
        };
        let mut time = now() + ahead;
        while is_first(&scene, time) {
            scene.reconcile_once(time);
            time += TIMES.step;
        }
        scene.reconcile(now() + DAY);
        assert_eq!(scene.signer, first, "{ahead}");
    }
}

/// A CA that a clock which was ahead put into its place is one of before, trusted while one of its
/// certificates is in use.
#[test]
fn what_was_signed_while_the_clock_was_wrong_is_trusted_until_it_is_replaced() {
    let mut scene = Stage::new();
    scene.reconcile(now());
    let right = scene.issuer();
    scene.reconcile(now() + 11 * YEAR);
    let wrong = scene.signer.clone().unwrap();
    assert_ne!(wrong, right);
    let status = scene.pki.status.as_mut().unwrap();
    status.issuer_fingerprint = Some(wrong.clone());
    status.not_after = Some(serde_json::from_value(json!(now() + 12 * YEAR)).unwrap());
    for day in 0..5 {
        scene.reconcile(now() + day * DAY);
        assert_eq!(scene.signer.as_ref(), Some(&right));
    }
    scene.pki.status.as_mut().unwrap().issuer_fingerprint = Some(right);
    for day in 5..8 {
        scene.reconcile(now() + day * DAY);
    }
    let state = scene.state(now()).unwrap();
    assert!(state.trusted().next().is_none());
    assert_eq!(state.retired[0].ca.fingerprint(), wrong, "its key is kept");
}

/// A wrong clock must not bring a stolen key back.
#[test]
fn a_ca_that_was_replaced_by_force_never_signs_again() {
    let (stolen, new) = (authority(), authority());
    let mut state = with_previous(state_of(&new), &stolen, None);
    let found = || StoredCa {
        retired: vec![copy(&stolen).unwrap()],
        ..stored(read_at(&new, now() - YEAR), None)
    };
    let signer = |state: &CaState| {
        let past = now() - YEAR;
        let evaluation = evaluate(Some(state.clone()), Some(found()), SECRET, past).unwrap();
        evaluation.signer.ok().map(|signer| fingerprint(&signer))
    };
    assert_eq!(signer(&state), Some(fingerprint(&stolen)));
    state.retired[0].forced = Some(now());
    assert_eq!(signer(&state), None);
}
