//! Where the CAs lie in their Secret, and how they change places: on plain data.
//!
//! The one that signs belongs into `tls.crt` and `tls.key`. The one that did goes to
//! `retired-<id>.crt` and `retired-<id>.key`, where `<id>` is the beginning of its fingerprint, and
//! stays there for a while.

use super::rotation::{RotationRequest, StoredCa};
use super::{ACCEPT, ROTATE_NOW};
use crate::api::annotations::{FORCE, FORCED};
use crate::k8s::{ca_secret, secret};
use crate::model::ca_state::{CaState, Retired, certificate_at_any_time};
use crate::util::hash::digest;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use pki_certs::{Authority, AuthorityError, CaCertificate};
use serde_json::{Map, Value, json};

/// Length of an id in hexadecimal digits: no two fingerprints begin with the same 64 bits.
const ID: usize = 16;

/// The files of one CA in the Secret: its chain, its key, its root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place([String; 3]);

impl Place {
    fn tls() -> Self {
        Self(["tls.crt", "tls.key", "ca.crt"].map(str::to_owned))
    }

    fn next() -> Self {
        Self(["next.crt", "next.key", "next-ca.crt"].map(str::to_owned))
    }

    fn retired(ca: &CaCertificate) -> Self {
        Self::of_id(&ca.fingerprint()[..ID])
    }

    fn of_id(id: &str) -> Self {
        Self([".crt", ".key", "-ca.crt"].map(|end| format!("retired-{id}{end}")))
    }

    fn is_taken(&self, secret: &Secret) -> bool {
        let [chain, key, _] = &self.0;
        !secret::file(secret, chain).is_empty() || !secret::file(secret, key).is_empty()
    }

    fn authority(&self, secret: &Secret, now: Timestamp) -> Result<Authority, AuthorityError> {
        let [chain, key, root] = self.0.each_ref().map(|name| secret::file(secret, name));
        ca_secret::from_files(chain, root, key, now)
    }

    /// Where the CA that lies here goes when another takes its place. An unreadable one stays too.
    fn retirement(&self, secret: &Secret, now: Timestamp) -> Self {
        let files @ [chain, _, root] = self.0.each_ref().map(|name| secret::file(secret, name));
        match certificate_at_any_time(chain, root, now) {
            Ok(ca) => Self::retired(&ca),
            Err(_) => Self::of_id(&format!("{:016x}", digest(files))),
        }
    }

    fn clear(&self, data: &mut Map<String, Value>) {
        data.extend(self.0.iter().map(|name| (name.clone(), Value::Null)));
    }

    /// Copies what lies there to another place.
    fn copy(&self, secret: &Secret, to: &Self, data: &mut Map<String, Value>) {
        for (from, to) in self.0.iter().zip(&to.0) {
            let file = secret::file(secret, from);
            let content = (!file.is_empty()).then(|| ByteString(file.to_vec()));
            data.insert(to.clone(), json!(content));
        }
    }
}

/// The places of those that signed before.
fn retired(secret: &Secret) -> impl Iterator<Item = Place> {
    let names = secret.data.iter().flatten().map(|(name, _)| name);
    let ids = names.filter_map(|name| name.strip_prefix("retired-")?.strip_suffix(".key"));
    ids.map(Place::of_id)
}

/// Reads the Secret. Where the platform team brings the CA, the annotation `force` counts for the
/// successor that is there.
pub(super) fn read(stored: &Secret, is_brought: bool, now: Timestamp) -> StoredCa {
    let next = Place::next();
    let next = next.is_taken(stored).then(|| next.authority(stored, now));
    let marked = stored.annotations().get(FORCED).cloned();
    let is_wanted = is_brought && request(stored) == Some(RotationRequest::Force);
    let brought = next.as_ref().and_then(|next| next.as_ref().ok());
    let brought = brought.filter(|_| is_wanted);
    StoredCa {
        current: Place::tls().authority(stored, now),
        accepted: stored.annotations().get(ACCEPT).cloned(),
        retired: retired(stored)
            .filter_map(|place| place.authority(stored, now).ok())
            .collect(),
        forced: brought.map_or(marked, |next| Some(next.ca().fingerprint().to_owned())),
        next,
    }
}

pub(super) fn request(stored: &Secret) -> Option<RotationRequest> {
    Some(match stored.annotations().get(ROTATE_NOW)?.trim() {
        FORCE => RotationRequest::Force,
        _ => RotationRequest::Rotate,
    })
}

pub(super) fn has_next(secret: &Secret) -> bool {
    Place::next().is_taken(secret)
}

/// The change that puts a successor into the Secret, and removes the request for one.
pub(super) fn with_next(successor: &Authority, request: Option<RotationRequest>) -> Value {
    let fingerprint = successor.ca().fingerprint();
    let forced = (request == Some(RotationRequest::Force)).then_some(fingerprint);
    json!({
        "metadata": { "annotations": { ROTATE_NOW: null, FORCED: forced } },
        "stringData": {
            "next.crt": successor.ca().certificate_pem(),
            "next.key": successor.private_key_pem().as_str(),
        },
        "data": { "next-ca.crt": null },
    })
}

/// The change that tidies up: the CA that signs moves to its place, the one that lay there to those
/// that signed before. `outdated` ones go, and an unused successor that a wrong clock has made.
pub(super) fn moved<'a>(
    secret: &Secret,
    state: &CaState,
    outdated: impl IntoIterator<Item = &'a Retired>,
    now: Timestamp,
) -> Option<Value> {
    let mut data = Map::new();
    let mut annotations = Map::new();
    let (tls, next) = (Place::tls(), Place::next());
    let is_current = |place: &Place| {
        let found = place.authority(secret, now);
        found.is_ok_and(|found| found.ca().fingerprint() == state.current.fingerprint())
    };
    if !is_current(&tls)
        && let Some(place) = std::iter::once(next.clone())
            .chain(retired(secret))
            .find(is_current)
    {
        place.clear(&mut data);
        if tls.is_taken(secret) {
            tls.copy(secret, &tls.retirement(secret, now), &mut data);
        }
        place.copy(secret, &tls, &mut data);
        if secret.annotations().contains_key(FORCED) {
            annotations.insert(FORCED.to_owned(), Value::Null);
        }
    } else if state.next.is_none() && is_untimely(&next, secret, now) {
        next.clear(&mut data);
    } else {
        for place in outdated.into_iter().map(|it| Place::retired(&it.ca)) {
            if place.is_taken(secret) {
                place.clear(&mut data);
            }
        }
    }
    let change = json!({ "metadata": { "annotations": annotations }, "data": data });
    (!data.is_empty()).then_some(change)
}

/// Whether a CA is not in force, and nothing else is wrong with it.
fn is_untimely(place: &Place, secret: &Secret, now: Timestamp) -> bool {
    let found = place.authority(secret, now);
    matches!(
        found,
        Err(AuthorityError::NotYetValid { .. } | AuthorityError::Expired { .. })
    )
}

pub(super) fn has_key(secret: &Secret, retired: &Retired) -> bool {
    Place::retired(&retired.ca).is_taken(secret)
}
