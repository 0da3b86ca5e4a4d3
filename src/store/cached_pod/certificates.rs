//! The pod certificates that a pod mounts, and who the pod is to those that ask for them.

use crate::api::SIGNER;
use crate::api::annotations::POD_PKI;
use k8s_openapi::api::core::v1::{PodCertificateProjection, PodSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The number of mounts that are kept of a pod.
const MAX_MOUNTS: usize = 16;

/// A pod that mounts certificates of the signer. All of it is immutable once the pod has a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedPod {
    /// The service account that it runs as.
    pub service_account: Box<str>,
    /// The node that it is assigned to; empty before.
    pub node: Box<str>,
    /// Its projections of the signer, in the order of the spec.
    pub mounts: Box<[CertificateMount]>,
    /// The names under which an index of pods finds it.
    pub(super) entries: Box<[Arc<str>]>,
}

/// One projection of a pod certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateMount {
    /// The key that the kubelet makes, as in `ECDSAP256`.
    pub key_type: Box<str>,
    /// The longest lifetime in seconds, if the pod limits it.
    pub max_expiration_seconds: Option<i32>,
    /// The `userAnnotations`, by which the pod names its Pki.
    pub annotations: BTreeMap<String, String>,
}

impl CertifiedPod {
    pub(super) fn of(spec: &PodSpec) -> Option<Self> {
        let volumes = spec.volumes.iter().flatten();
        let projected = volumes.filter_map(|volume| volume.projected.as_ref());
        let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
        let projections = sources.filter_map(|source| source.pod_certificate.as_ref());
        let ours = projections.filter(|it| it.signer_name == SIGNER);
        let mounts: Box<[_]> = ours.take(MAX_MOUNTS).map(CertificateMount::of).collect();
        let account = spec.service_account_name.as_deref();
        let named = mounts.iter().map(|mount| mount.annotations.get(POD_PKI));
        let entries: BTreeSet<_> = named.map(|pki| entry(pki.map(String::as_str))).collect();
        (!mounts.is_empty()).then(|| Self {
            entries: entries.into_iter().map(Arc::from).collect(),
            service_account: account.unwrap_or("default").into(),
            node: spec.node_name.as_deref().unwrap_or_default().into(),
            mounts,
        })
    }
}

/// The name under which an index finds the pods with certificates for this Pki, or those that name
/// none. It is not the name of a Secret, which has no colon.
pub(crate) fn entry(pki: Option<&str>) -> String {
    format!("podCertificate:{}", pki.unwrap_or_default())
}

impl CertifiedPod {
    /// Whether it names this Pki, or no Pki and `is_only` one is for pods.
    pub fn names_pki(&self, pki: &str, is_only: bool) -> bool {
        let mut mounts = self.mounts.iter();
        mounts.any(|mount| match mount.annotations.get(POD_PKI) {
            Some(name) => name == pki,
            None => is_only,
        })
    }
}

impl CertificateMount {
    fn of(projection: &PodCertificateProjection) -> Self {
        Self {
            key_type: projection.key_type.as_str().into(),
            max_expiration_seconds: projection.max_expiration_seconds,
            annotations: projection.user_annotations.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(sources: &serde_json::Value) -> Option<CertifiedPod> {
        let spec = json!({
            "containers": [], "nodeName": "node", "serviceAccountName": "app",
            "volumes": [{"name": "other", "emptyDir": {}}, {"name": "tls", "projected": {"sources": sources}}]
        });
        CertifiedPod::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn only_projections_of_the_signer_are_kept() {
        let found = pod(&json!([
            {"podCertificate": {"signerName": "example.com/other", "keyType": "RSA3072"}},
            {"podCertificate": {
                "signerName": "box.com/pki", "keyType": "ECDSAP256", "maxExpirationSeconds": 3600,
                "userAnnotations": {"box.com/pki": "app1-pki"}}},
            {"secret": {"name": "tls"}}
        ]));
        let found = found.unwrap();
        assert_eq!((&*found.service_account, &*found.node), ("app", "node"));
        let annotations = [("box.com/pki".to_owned(), "app1-pki".to_owned())];
        let expected = CertificateMount {
            key_type: "ECDSAP256".into(),
            max_expiration_seconds: Some(3600),
            annotations: annotations.into(),
        };
        assert_eq!(*found.mounts, [expected]);
        assert_eq!(*found.entries, ["podCertificate:app1-pki".into()]);
    }

    #[test]
    fn a_pod_without_them_keeps_nothing() {
        let other =
            json!({"podCertificate": {"signerName": "box.com/pki-x", "keyType": "ED25519"}});
        for sources in [json!([]), json!([other])] {
            assert_eq!(pod(&sources), None);
        }
    }
}
