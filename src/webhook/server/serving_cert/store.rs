//! Reads the Secret with the CAs of the webhook, and writes it in the version that was read.

use super::ServingCertError;
use super::decision::{CurrentServingCa, ServingCaChange, ServingCas, StoredServingCa};
use super::path::Segment;
use crate::api::annotations::{PREVIOUS_SINCE as SINCE, ROTATE_NOW};
use crate::k8s::object_key::Key;
use crate::k8s::{ca_secret, patch, secret};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use pki_certs::{Authority, AuthorityError};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a new CA is valid.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
const COMMON_NAME: &str = "pki-operator webhook CA";
/// The file with the certificates of the CAs before.
const PREVIOUS: &str = "previous.crt";
/// The files with the secret segment of the path, and with those before, one a line.
const PATH: &str = "path";
const PREVIOUS_PATH: &str = "previous-path";

/// Why there is no CA for the webhook.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServingCaError {
    /// The API server did not let us read or write the Secret.
    #[error("cannot read or create Secret {0}: {1}")]
    Api(Key, #[source] kube::Error),
    /// The CA does not sign the serving certificate.
    #[error(
        "Secret {0} holds a CA that the webhook cannot use: {1}; replace it, or delete the Secret and the operator makes one"
    )]
    Unsuitable(Key, #[source] ServingCertError),
    /// The Secret holds no usable CA, and is not the operator's to change.
    #[error(
        "Secret {0} holds no usable CA for the webhook: {1}; if nobody needs its content, delete it and the operator makes another"
    )]
    Unusable(Key, #[source] AuthorityError),
}

/// Reads the Secret. If its previous CAs are unreadable, the `known` ones are taken.
pub(super) fn read(
    secret: Option<&Secret>,
    known: Option<&ServingCas>,
    now: Timestamp,
) -> StoredServingCa {
    let Some(secret) = secret else {
        return StoredServingCa::Absent;
    };
    let current = match ca_secret::read(secret, now) {
        Ok(current) => Arc::new(current),
        Err(error) => {
            let is_ours = patch::is_ours(&secret.metadata, &patch::labels());
            return StoredServingCa::Unusable { error, is_ours };
        }
    };
    let annotation = |name: &str| secret.annotations().get(name);
    let lost = || known.map(|known| known.previous.clone());
    let previous = pki_certs::anchors(secret::file(secret, PREVIOUS)).or_else(lost);
    let mut previous = previous.unwrap_or_default();
    previous.retain(|certificate| certificate != current.ca().certificate_pem());
    let segments = |name| {
        let text = str::from_utf8(secret::file(secret, name)).unwrap_or_default();
        text.lines().filter_map(Segment::read)
    };
    let segment = segments(PATH).next();
    let previous_segments = segments(PREVIOUS_PATH);
    StoredServingCa::Usable {
        cas: ServingCas {
            current,
            previous,
            previous_segments: previous_segments
                .filter(|previous| Some(previous) != segment.as_ref())
                .collect(),
            segment,
            since: annotation(SINCE).and_then(|since| since.parse().ok()),
        },
        rotate_now: annotation(ROTATE_NOW).is_some(),
    }
}

/// Creates the Secret, or changes the one that was seen.
///
/// Errors: a conflict if the Secret has changed since.
pub(super) async fn write(
    secrets: &Api<Secret>,
    key: &Key,
    seen: Option<&Secret>,
    change: &ServingCaChange,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let authority = match &change.current {
        CurrentServingCa::Same => None,
        CurrentServingCa::Known(authority) => Some(authority.clone()),
        CurrentServingCa::New => Some(Arc::new(generate(now))),
    };
    let mut files = path_files(change);
    files.insert(PREVIOUS.to_owned(), file(change.previous.concat()));
    let since = change.since.map(|since| since.to_string());
    if let Some(seen) = seen {
        if let Some(authority) = &authority {
            files.insert("ca.crt".to_owned(), None);
            let present = ca_secret::files(authority).into_iter();
            files.extend(present.map(|(name, content)| (name, Some(content))));
        }
        let annotations = json!({ SINCE: since, ROTATE_NOW: null });
        // From now on the operator owns the Secret, no matter who put the CA there.
        let metadata = json!({ "labels": patch::labels(), "annotations": annotations });
        let mut patch = json!({ "metadata": metadata, "data": files });
        patch::bind(&mut patch, seen);
        let patch = Patch::Merge(&patch);
        secrets.patch(&key.name, &patch::patch(), &patch).await?;
    } else {
        let authority = authority.as_ref();
        let authority = authority.expect("nothing is kept of a missing Secret");
        let mut manifest = ca_secret::manifest(key, authority);
        let files = files.into_iter();
        let files = files.filter_map(|(name, file)| Some((name, file?)));
        manifest.data.get_or_insert_default().extend(files);
        let annotations = since.map(|since| [(SINCE.to_owned(), since)].into());
        manifest.metadata.annotations = annotations;
        secrets.create(&patch::post(), &manifest).await?;
    }
    let ca = authority.as_ref().map(|it| it.ca().fingerprint());
    tracing::info!(secret = %key, ca, "{}", change.reason.message());
    Ok(())
}

/// The files with the segments; `None` for one that is removed.
fn path_files(change: &ServingCaChange) -> BTreeMap<String, Option<ByteString>> {
    let previous = change.previous_segments.iter().map(Segment::as_str);
    let previous = previous.collect::<Vec<_>>().join("\n");
    let mut files = BTreeMap::from([(PREVIOUS_PATH.to_owned(), file(previous))]);
    let segment = match &change.segment {
        CurrentServingCa::Same => return files,
        CurrentServingCa::Known(segment) => segment.clone(),
        CurrentServingCa::New => Segment::generate(),
    };
    files.insert(PATH.to_owned(), file(segment.as_str().to_owned()));
    files
}

fn file(content: String) -> Option<ByteString> {
    (!content.is_empty()).then(|| ByteString(content.into_bytes()))
}

fn generate(now: Timestamp) -> Authority {
    Authority::generate(COMMON_NAME, CA_LIFETIME, now).expect("a CA with a name and a year is made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time::tests::now;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn secret(files: &[(&str, &str)], annotations: &[(&str, &str)]) -> Secret {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let data = files.iter().map(text);
        Secret {
            metadata: ObjectMeta {
                annotations: Some(annotations.iter().map(text).collect()),
                ..ObjectMeta::default()
            },
            data: Some(
                data.map(|(name, it)| (name, ByteString(it.into())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn previous_cas_are_read_beside_unreadable_content() {
        let [one, other] = [generate(now()), generate(now())];
        let (crt, before) = (one.ca().certificate_pem(), other.ca().certificate_pem());
        let key = one.private_key_pem().as_str();
        let all = format!("{crt}{before}");
        for (previous, since, expected) in [
            ("", None, (vec![], None)),
            (
                before,
                Some("2029-12-31T00:00:00Z"),
                (vec![before], Some("2029-12-31T00:00:00Z")),
            ),
            // The present one is no former one, and what cannot be read is nothing.
            (&all, Some("yesterday"), (vec![before], None)),
            ("none", Some(""), (vec![], None)),
            (&before[..100], None, (vec![], None)),
        ] {
            let files = [("tls.crt", crt), ("tls.key", key), (PREVIOUS, previous)];
            let since: Vec<_> = since.map(|since| (SINCE, since)).into_iter().collect();
            let StoredServingCa::Usable { cas, rotate_now } =
                read(Some(&secret(&files, &since)), None, now())
            else {
                panic!("it is usable")
            };
            let (previous, since) = expected;
            assert_eq!(cas.previous, previous);
            assert_eq!(cas.since, since.map(|since| since.parse().unwrap()));
            assert!(!rotate_now);
        }
    }

    #[test]
    fn previous_cas_that_cannot_be_read_are_the_known_ones() {
        let [one, other] = [generate(now()), generate(now())];
        let (crt, before) = (one.ca().certificate_pem(), other.ca().certificate_pem());
        let key = one.private_key_pem().as_str();
        let previous = |file: &str| {
            let known = ServingCas {
                current: Arc::new(generate(now())),
                previous: vec![before.to_owned()],
                segment: None,
                previous_segments: vec![],
                since: None,
            };
            let files = [("tls.crt", crt), ("tls.key", key), (PREVIOUS, file)];
            match read(Some(&secret(&files, &[])), Some(&known), now()) {
                StoredServingCa::Usable { cas, .. } => cas.previous,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(previous(&before[..100]), [before]);
        // Somebody took them out.
        assert_eq!(previous(""), Vec::<String>::new());
    }

    #[test]
    fn segments_are_read_as_they_are_written() {
        let authority = generate(now());
        let (crt, key) = (
            authority.ca().certificate_pem(),
            authority.private_key_pem(),
        );
        let segments = [(); 3].map(|()| Segment::generate());
        let [one, two, three] = segments.each_ref();
        let read = |path: &str, previous: &str| {
            let files = [("tls.crt", crt), ("tls.key", key.as_str()), (PATH, path)];
            let files = [&files[..], &[(PREVIOUS_PATH, previous)]].concat();
            match read(Some(&secret(&files, &[])), None, now()) {
                StoredServingCa::Usable { cas, .. } => (cas.segment, cas.previous_segments),
                other => panic!("{other:?}"),
            }
        };
        let change = ServingCaChange {
            reason: super::super::decision::Reason::Path,
            current: CurrentServingCa::Same,
            previous: vec![],
            segment: CurrentServingCa::Known(one.clone()),
            previous_segments: vec![two.clone(), three.clone()],
            since: None,
        };
        let written = path_files(&change);
        let text = |name: &str| match &written[name] {
            Some(content) => String::from_utf8(content.0.clone()).unwrap(),
            None => String::new(),
        };
        let before = vec![two.clone(), three.clone()];
        let found = read(&text(PATH), &text(PREVIOUS_PATH));
        assert_eq!(found, (Some(one.clone()), before));
        // The present one is no former one, and what has another form is nothing.
        let previous = format!("{}\nnone\n{}\n", one.as_str(), two.as_str());
        let found = read(&format!("{}\n", one.as_str()), &previous);
        assert_eq!(found, (Some(one.clone()), vec![two.clone()]));
        assert_eq!(read("none", ""), (None, vec![]));
    }

    #[test]
    fn an_unusable_secret_is_the_operators_if_the_operator_wrote_it() {
        let of = |labels: serde_json::Value, manager: &str| {
            let secret =
                json!({"metadata": {"labels": labels, "managedFields": [{"manager": manager}]}});
            match read(Some(&serde_json::from_value(secret).unwrap()), None, now()) {
                StoredServingCa::Unusable { is_ours, .. } => is_ours,
                other => panic!("{other:?}"),
            }
        };
        assert!(of(json!(patch::labels()), patch::FIELD_MANAGER));
        assert!(!of(json!(patch::labels()), "kubectl"));
        assert!(!of(json!({}), patch::FIELD_MANAGER));
        assert!(matches!(read(None, None, now()), StoredServingCa::Absent));
    }
}
