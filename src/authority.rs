//! A CA in a Secret of the operator's namespace, made at the first start: the one that the webhook serves with.

use crate::index::Key;
use crate::reconcile::{secret, write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use pki_certs::Authority;
use std::collections::BTreeMap;

/// How long a CA made here is valid: ten years.
const LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Why there is no authority to sign with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server did not let us read or write the Secret.
    #[error("cannot read or create Secret {secret}: {source}")]
    Api {
        /// The Secret of the CA.
        secret: Key,
        /// What the API server said.
        source: kube::Error,
    },
    /// The Secret holds no usable CA. It is never replaced: certificates in use chain up to it.
    #[error(
        "Secret {secret} holds no usable CA: {source}; restore it from a backup, or delete it to have a new CA made, after which every certificate is issued anew"
    )]
    Unusable {
        /// The Secret of the CA.
        secret: Key,
        /// What is wrong with it.
        source: pki_certs::AuthorityError,
    },
    /// No CA could be made.
    #[error("cannot make a CA: {0}")]
    Generate(#[source] pki_certs::AuthorityError),
}

/// Reads the CA from its Secret; makes it when there is none. Of two replicas that start at once one creates the
/// Secret, and both sign with what is in it.
pub async fn load_or_create(
    client: &Client,
    key: &Key,
    common_name: &str,
) -> Result<Authority, Error> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &key.namespace);
    let api_error = |source| Error::Api {
        secret: key.clone(),
        source,
    };
    if let Some(stored) = secrets.get_opt(&key.name).await.map_err(api_error)? {
        return read(&stored, key);
    }
    let authority =
        Authority::generate(common_name, LIFETIME, Timestamp::now()).map_err(Error::Generate)?;
    match secrets
        .create(&write::post(), &manifest(key, &authority))
        .await
    {
        Ok(_) => {
            tracing::info!(secret = %key, fingerprint = authority.ca().fingerprint(), not_after = %authority.ca().not_after(), "made a CA");
            Ok(authority)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            read(&secrets.get(&key.name).await.map_err(api_error)?, key)
        }
        Err(error) => Err(api_error(error)),
    }
}

fn read(stored: &Secret, key: &Key) -> Result<Authority, Error> {
    let bundle = secret::bundle(stored);
    let root = secret::file(stored, "ca.crt");
    let now = Timestamp::now();
    let authority = Authority::from_pem(bundle.certificate, root, bundle.private_key, now);
    authority.map_err(|source| Error::Unusable {
        secret: key.clone(),
        source,
    })
}

/// The Secret of a CA.
pub fn manifest(key: &Key, authority: &Authority) -> Secret {
    let file =
        |name: &str, content: &str| (name.to_owned(), ByteString(content.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(write::labels()),
            ..ObjectMeta::default()
        },
        type_: Some(secret::TLS.into()),
        data: Some(BTreeMap::from([
            file("tls.crt", authority.ca().certificate_pem()),
            file("tls.key", authority.private_key_pem().as_str()),
        ])),
        ..Secret::default()
    }
}
