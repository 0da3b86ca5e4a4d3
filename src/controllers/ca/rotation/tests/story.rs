//! Ten years of a CA and its replacement, hour by hour, with peers that reload what they mount
//! sooner or later: at every moment each of them verifies each other, as a client and as a server,
//! by what it has loaded.

use super::*;
use crate::api::{self, Pki};
use crate::controllers::ca::progress::RolloutCounter;
use crate::controllers::pki::content::formats::Passwords;
use crate::controllers::pki::content::{Owner, SecretContent};
use crate::controllers::pki::plan::{Action, Current, Observed, SecretState, plan};
use crate::k8s::secret;
use crate::model::outcome::{self, Outcome};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use pki_certs::Bundle;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Everything there is: the Secret of the CA, its state, and the peers.
struct World {
    now: Timestamp,
    secret: BTreeMap<&'static str, String>,
    map: Option<ConfigMap>,
    ca: Option<Arc<Ca>>,
    ca_since: Timestamp,
    peers: Vec<Peer>,
    /// What has been verified before.
    verified: HashSet<(Vec<u8>, Vec<u8>)>,
    stages: Vec<(Timestamp, String)>,
    /// The successor that is to take over by force.
    forced: Option<String>,
    times: RotationTimes,
}

/// A workload with its certificate.
struct Peer {
    pki: Pki,
    secret: Option<Secret>,
    /// The Secret at each hour.
    mounted: Vec<Option<Secret>>,
    /// How long after a change of the CA its Secret can be written.
    written_after: SignedDuration,
    /// After so many hours it has loaded what is mounted.
    loaded_after: usize,
}

impl World {
    fn new() -> Self {
        let peer = |number: usize, written_after, loaded_after| {
            let mut pki = api::tests::pki(json!({}));
            pki.metadata.uid = Some(format!("uid-{number}"));
            let (secret, mounted) = (None, Vec::new());
            Peer {
                pki,
                secret,
                mounted,
                written_after,
                loaded_after,
            }
        };
        let kinds = [SignedDuration::ZERO, 30 * HOUR]
            .into_iter()
            .flat_map(|written| [0, 7, 24].map(|loaded| (written, loaded)));
        Self {
            now: now(),
            secret: BTreeMap::new(),
            map: None,
            ca: None,
            ca_since: now(),
            peers: kinds
                .enumerate()
                .map(|(n, (written, loaded))| peer(n, written, loaded))
                .collect(),
            verified: HashSet::new(),
            stages: Vec::new(),
            forced: None,
            times: TIMES,
        }
    }

    /// With peers whose Secrets are written at once, and one whose Secret cannot be written any
    /// more.
    fn with_one_in_the_way() -> Self {
        let mut world = Self::new();
        world
            .peers
            .retain(|peer| peer.written_after == SignedDuration::ZERO);
        let mut frozen = Self::new().peers.pop().unwrap();
        frozen.written_after = SignedDuration::MAX;
        world.peers.push(frozen);
        world
    }

    fn file(&self, name: &str) -> &[u8] {
        self.secret.get(name).map_or(&[], |text| text.as_bytes())
    }

    fn put(&mut self, crt: &'static str, key: &'static str, authority: &Authority) {
        self.secret
            .insert(crt, authority.ca().certificate_pem().to_owned());
        self.secret
            .insert(key, authority.private_key_pem().as_str().to_owned());
    }

    fn state(&self) -> Option<CaState> {
        self.map
            .as_ref()
            .map(|map| CaState::read(map, self.now).unwrap())
    }

    /// Runs the controller on the stored state, until there is nothing to do.
    fn keep(&mut self, mut request: Option<RotationRequest>) {
        for _ in 0..10 {
            if !self.keep_once(&mut request) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn keep_once(&mut self, request: &mut Option<RotationRequest>) -> bool {
        let read = |crt, key| Authority::from_pem(self.file(crt), b"", self.file(key), self.now);
        let next = (!self.file("next.crt").is_empty()).then(|| read("next.crt", "next.key"));
        let stored = StoredCa {
            forced: self.forced.clone(),
            ..stored(read("tls.crt", "tls.key"), next)
        };
        let found = evaluate(self.state(), Some(stored), SECRET, self.now).unwrap();
        assert_eq!(found.successor_alarm, None);
        let (state, signer) = (found.state, found.signer.unwrap());
        let progress = self.progress(&state);
        let state = super::super::advance(state, &progress, &self.times, self.now);
        let is_moved = fingerprint(&signer) != state.current.fingerprint();
        let map = json!({ "data": state.data() });
        let mut clean = json!({});
        json_patch::merge(&mut clean, &map);
        let map: ConfigMap = serde_json::from_value(clean).unwrap();
        let is_recorded = self.map.as_ref() != Some(&map);
        self.map = Some(map);
        if is_moved {
            return true;
        }
        let ca = Ca::from_state(&state, Ok(signer), |forced| self.times.window(forced));
        if self.ca.as_ref().is_none_or(|known| ca.differs_from(known)) {
            (self.ca, self.ca_since) = (Some(ca.into()), self.now);
        }
        if is_recorded {
            return true;
        }
        if is_due(&state, *request, &self.times, self.now) && self.file("next.crt").is_empty() {
            let successor = Authority::generate("ca", TEN_YEARS, self.now).unwrap();
            self.put("next.crt", "next.key", &successor);
            let is_forced = request.take() == Some(RotationRequest::Force);
            self.forced = is_forced.then(|| fingerprint(&successor));
            return true;
        }
        let is_signed_by_next = state.current.certificate_pem().as_bytes() == self.file("next.crt");
        if is_signed_by_next && let Some(crt) = self.secret.remove("next.crt") {
            let key = self.secret.remove("next.key").unwrap();
            self.secret.extend([("tls.crt", crt), ("tls.key", key)]);
            return true;
        }
        false
    }

    fn progress(&self, state: &CaState) -> RolloutProgress {
        let mut counter = RolloutCounter::new(state, &self.times, self.now);
        for peer in &self.peers {
            counter.count(&peer.pki);
        }
        counter.end()
    }

    /// What the reconciler does, for those whose Secrets can be written by now.
    fn reconcile(&mut self) {
        let ca = self.ca.clone().unwrap();
        for peer in &mut self.peers {
            if peer.secret.is_none() || self.now.duration_since(self.ca_since) >= peer.written_after
            {
                peer.reconcile(&ca, self.now);
            }
        }
    }

    /// All peers meet.
    fn meet(&mut self) {
        for peer in &mut self.peers {
            peer.mounted.push(peer.secret.clone());
        }
        let reached = self.peers.iter();
        let reached = reached.filter(|peer| peer.written_after < SignedDuration::MAX);
        let loaded: Vec<_> = reached.map(Peer::loaded).collect();
        for one in &loaded {
            for other in &loaded {
                let leaf = secret::file(one, "tls.crt").to_vec();
                let trust = secret::file(other, "ca.crt").to_vec();
                if self.verified.contains(&(leaf.clone(), trust.clone())) {
                    continue;
                }
                if let Err(error) = verify(&leaf, &trust, self.now) {
                    panic!("{}: {:?}: {error}", self.now, self.stages);
                }
                self.verified.insert((leaf, trust));
            }
        }
    }

    /// In few words.
    fn note_stage(&mut self) {
        let state = self.state().unwrap();
        let name = |ca: &CaCertificate| ca.fingerprint()[..8].to_owned();
        let next = state.next.as_ref().map(|next| {
            let how = next.published.map_or("made", |_| "published");
            format!("{} {how}", name(&next.ca))
        });
        let previous = previous(&state).map(|previous| {
            let how = previous.unused.map_or("in use", |_| "unused");
            format!("{} {how}", name(&previous.ca))
        });
        let roles = [Some(name(&state.current)), next, previous];
        let phase = roles.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if self.stages.last().is_none_or(|(_, last)| *last != phase) {
            self.stages.push((self.now, phase));
        }
    }

    fn hour(&mut self, on_demand: bool) {
        self.hour_with(on_demand.then_some(RotationRequest::Rotate));
    }

    fn hour_with(&mut self, request: Option<RotationRequest>) {
        self.keep(request);
        self.note_stage();
        self.reconcile();
        self.meet();
        self.now += HOUR;
    }

    fn leap(&mut self, to: Timestamp) {
        self.now = to;
        self.verified.clear();
        // Everybody has renewed and reloaded many times meanwhile.
        self.keep(None);
        self.note_stage();
        let ca = self.ca.clone().unwrap();
        for peer in &mut self.peers {
            peer.reconcile(&ca, to);
            peer.mounted.clear();
        }
    }
}

impl Peer {
    fn reconcile(&mut self, ca: &Ca, now: Timestamp) {
        let approved = api::tests::approved(&self.pki);
        let observed = Observed {
            secret: self.secret.clone().map_or(SecretState::Absent, |secret| {
                SecretState::Stored(Box::new(secret), Owner::Ours)
            }),
            ..Observed::of(self.pki.clone(), Ok(approved.clone()), ca)
        };
        let issuers: Vec<_> = ca.issuers.iter().collect();
        let sound = |certificate: &[u8], private_key: &[u8]| {
            let bundle = Bundle {
                certificate,
                private_key,
            };
            pki_certs::verify(&bundle, &approved.certificate, &issuers, now).unwrap()
        };
        let write = |certificate: &[u8], private_key: &[u8]| {
            let content = SecretContent {
                pki: &self.pki,
                approved: &approved,
                bundle: Bundle {
                    certificate,
                    private_key,
                },
                trust: &ca.trust,
                passwords: &Passwords::default(),
            };
            content.manifest().0
        };
        let (written, current) = match plan(&observed, now).action {
            Action::Issue(..) => {
                let signer = ca.signer.as_ref().unwrap();
                let leaf = signer.issue(&approved.certificate, now).unwrap();
                let [crt, key] = [leaf.chain_pem.as_bytes(), leaf.private_key_pem.as_bytes()];
                let verified = sound(crt, key);
                let (renew_at, _) =
                    crate::controllers::pki::plan::due(&self.pki, &approved, &verified, ca, now);
                let current = Current {
                    verified,
                    renew_at,
                    approved: Box::new(approved.clone()),
                };
                (Some(write(crt, key)), current)
            }
            Action::Repair(current) => {
                let bundle = secret::bundle(self.secret.as_ref().unwrap());
                (Some(write(bundle.certificate, bundle.private_key)), current)
            }
            Action::Keep(current) => (None, current),
            other => panic!("{other:?}"),
        };
        let outcome = Outcome::Ready(current.certificate(ca));
        self.pki.status = Some(outcome::after(&self.pki, &outcome, now));
        if written.is_some() {
            self.secret = written;
        }
    }

    /// What it has loaded: what was mounted some hours ago, or at its start.
    fn loaded(&self) -> Secret {
        let last = self.mounted.len() - 1;
        let loaded = &self.mounted[last.saturating_sub(self.loaded_after)];
        loaded.clone().expect("it starts when its Secret is there")
    }
}

/// Enough for a rotation, and for everybody to load what comes of it.
const HOURS: i32 = 200;

/// As any TLS client and any TLS server does it.
fn verify(leaf: &[u8], trust: &[u8], now: Timestamp) -> Result<(), rustls::Error> {
    let certificates = |pem: &[u8]| -> Vec<_> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| der.unwrap().into_owned())
            .collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(trust) {
        roots.add(root)?;
    }
    let (roots, chain) = (Arc::new(roots), certificates(leaf));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seconds = u64::try_from(now.as_second()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let name = ServerName::try_from("app1.ns.svc").unwrap();
    let client = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let client = client.build().unwrap();
    client.verify_server_cert(&chain[0], &chain[1..], &name, &[], now)?;
    let server = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let server = server.build().unwrap();
    server
        .verify_client_cert(&chain[0], &chain[1..], now)
        .map(drop)
}

#[test]
fn each_peer_verifies_each_other_at_every_moment_of_a_rotation() {
    let mut world = World::new();
    let old = authority();
    world.put("tls.crt", "tls.key", &old);
    for _ in 0..24 {
        world.hour(false);
    }
    assert_eq!(
        world.stages.len(),
        1,
        "nothing happens on the first day: {:?}",
        world.stages
    );

    let due = now() + TEN_YEARS * 2 / 3;
    world.leap(due - 30 * HOUR);
    for _ in 0..30 {
        world.hour(false);
    }
    assert_eq!(
        world.stages.len(),
        1,
        "nor before the last third: {:?}",
        world.stages
    );
    for _ in 0..HOURS {
        world.hour(false);
    }
    expect_rotation(&world, &old, due);
}

#[test]
fn each_peer_verifies_each_other_while_one_rotation_follows_the_other() {
    let mut world = World::new();
    let old = authority();
    world.put("tls.crt", "tls.key", &old);
    for hour in 0..HOURS {
        world.hour(hour == 10);
    }
    expect_rotation(&world, &old, now() + 10 * HOUR);
    let begin = world.now;
    let old = copy_from(&world);
    world.stages.clear();
    for hour in 0..HOURS {
        world.hour(hour == 0);
    }
    world
        .stages
        .insert(0, (begin, fingerprint(&old)[..8].to_owned()));
    expect_rotation(&world, &old, begin);
}

fn copy_from(world: &World) -> Authority {
    Authority::from_pem(world.file("tls.crt"), b"", world.file("tls.key"), world.now).unwrap()
}

/// The stages come one after the other, a step lies between publishing and signing, and another
/// between the last use and the withdrawal; in the end nothing is left of the old CA.
fn expect_rotation(world: &World, old: &Authority, begin: Timestamp) {
    let new = copy_from(world);
    let (o, n) = (&fingerprint(old)[..8], &fingerprint(&new)[..8]);
    assert_ne!(o, n);
    let stages: Vec<_> = world
        .stages
        .iter()
        .map(|(_, stage)| stage.as_str())
        .collect();
    assert_eq!(
        stages,
        [
            o.to_owned(),
            format!("{o}, {n} made"),
            format!("{o}, {n} published"),
            format!("{n}, {o} in use"),
            format!("{n}, {o} unused"),
            n.to_owned(),
        ]
    );
    let times: Vec<_> = world.stages.iter().map(|(time, _)| *time).collect();
    assert_eq!(times[1], begin);
    assert!(
        times[2] >= begin + 30 * HOUR,
        "the last Secret is waited for"
    );
    assert_eq!(times[3], times[2] + STEP);
    assert!(
        times[4] > times[3] && times[4] <= times[3] + STEP + 31 * HOUR,
        "{times:?}"
    );
    assert_eq!(times[5], times[4] + STEP);
    assert_eq!(
        world.secret.keys().copied().collect::<Vec<_>>(),
        ["tls.crt", "tls.key"]
    );
    for peer in &world.peers {
        let status = peer.pki.status.as_ref().unwrap();
        assert_eq!(
            status.issuer_fingerprint.as_deref(),
            Some(new.ca().fingerprint())
        );
        let loaded = peer.loaded();
        assert_eq!(
            secret::file(&loaded, "ca.crt"),
            new.ca().root_pem().as_bytes()
        );
    }
}

/// Those who are reached verify each other at every moment, though one of them is not.
#[test]
fn one_in_the_way_stops_no_rotation_and_breaks_nobody_else() {
    let wait = 3 * DAY;
    for (request, withdrawn) in [
        (RotationRequest::Force, true),
        (RotationRequest::Rotate, false),
    ] {
        let mut world = World::with_one_in_the_way();
        world.times.wait = wait;
        let old = authority();
        world.put("tls.crt", "tls.key", &old);
        for _ in 0..24 {
            world.hour(false);
        }
        let begin = world.now;
        for hour in 0..HOURS {
            world.hour_with((hour == 0).then_some(request));
        }
        let trust = world.state().unwrap().trust();
        let is_trusted = trust.pem().contains(old.ca().root_pem());
        assert_eq!(!is_trusted, withdrawn, "{:?}", world.stages);
        assert_ne!(fingerprint(&copy_from(&world)), fingerprint(&old));
        let longest = if withdrawn { 3 * STEP } else { wait + STEP };
        let (end, _) = world.stages.last().unwrap();
        assert!(end.duration_since(begin) <= longest, "{:?}", world.stages);
    }
}
