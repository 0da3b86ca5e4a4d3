//! Pod certificates: whether there are any, and which pods have one.

use super::Cache;
use crate::k8s::object_key::Key;
use crate::store::secret_index::ReferencesSecrets as _;
use crate::util::sync::lock;

impl Cache {
    /// Whether the API server has pod certificates, once that is known.
    pub fn serves_pod_certificates(&self) -> Option<bool> {
        *lock(&self.pod_certificates)
    }

    pub(crate) fn set_serves_pod_certificates(&self, serves: bool) {
        if lock(&self.pod_certificates).replace(serves) != Some(serves) {
            let pkis = self
                .known_pkis()
                .into_iter()
                .filter(|pki| pki.is_for_pods());
            self.trigger(pkis.map(|pki| pki.key().clone()));
        }
    }

    /// The Pki that a pod means which names none, if there is only one that is for pods.
    pub fn only_pki_for_pods(&self, namespace: &str) -> Option<Key> {
        let pkis = self.pkis.read();
        let of_pods = pkis.all().filter(|pki| {
            pki.is_for_pods() && !pki.is_being_deleted() && *pki.key().namespace == *namespace
        });
        let mut keys = of_pods.map(|pki| pki.key());
        let only = keys.next()?;
        keys.next().is_none().then(|| only.clone())
    }

    /// The number of pods that use a pod certificate of this Pki: those that have started.
    pub fn pods_certified_by(&self, pki: &Key) -> usize {
        let is_only = self.only_pki_for_pods(&pki.namespace).as_ref() == Some(pki);
        let pods = self.pods.read();
        let started = pods.all().filter(|pod| {
            !pod.is_pending && !pod.is_ending && *pod.key.namespace == *pki.namespace
        });
        let certified = started.filter_map(|pod| pod.certified.as_deref());
        certified
            .filter(|pod| pod.names_pki(&pki.name, is_only))
            .count()
    }

    /// Notes the namespaces of all known Pkis with such keys.
    pub(super) fn touch_where(&self, is_meant: impl Fn(&Key) -> bool) {
        let pkis = self.pkis.read();
        let meant = pkis.all().map(|pki| pki.key()).filter(|key| is_meant(key));
        for key in meant {
            self.touched.note(&key.namespace);
        }
    }
}
