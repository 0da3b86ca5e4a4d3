//! A CA as it lies in a Secret of the operator's namespace.

use crate::k8s::clock::MAX_FUTURE;
use crate::k8s::object_key::Key;
use crate::k8s::{patch, secret};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki_certs::{Authority, AuthorityError};
use std::collections::BTreeMap;

/// Reads the CA, and checks that it can sign.
pub fn read(stored: &Secret, now: Timestamp) -> Result<Authority, AuthorityError> {
    let file = |name| secret::file(stored, name);
    from_files(file("tls.crt"), file("ca.crt"), file("tls.key"), now)
}

/// Reads a CA: its certificate with those between it and the root, the root where that is not among
/// them, and the key.
pub fn from_files(
    chain: &[u8],
    root: &[u8],
    key: &[u8],
    now: Timestamp,
) -> Result<Authority, AuthorityError> {
    let read = |now| Authority::from_pem(chain, root, key, now);
    match read(now) {
        // Another replica made it, whose clock was ahead of this one.
        Err(AuthorityError::NotYetValid(_, not_before))
            if not_before.duration_since(now) <= MAX_FUTURE =>
        {
            read(not_before)
        }
        authority => authority,
    }
}

/// The Secret of a CA.
pub fn manifest(key: &Key, authority: &Authority) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(patch::labels()),
            ..ObjectMeta::default()
        },
        type_: Some(secret::TLS.into()),
        data: Some(files(authority)),
        ..Secret::default()
    }
}

/// The files of a CA, from which [`read`] reads the same one.
pub fn files(authority: &Authority) -> BTreeMap<String, ByteString> {
    let ca = authority.ca();
    let file = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let key = file("tls.key", authority.private_key_pem().as_str());
    if ca.chain_pem().is_empty() {
        return BTreeMap::from([file("tls.crt", ca.root_pem()), key]);
    }
    let chain = file("tls.crt", ca.chain_pem());
    BTreeMap::from([chain, file("ca.crt", ca.root_pem()), key])
}
