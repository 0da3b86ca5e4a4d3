//! Pod certificates: whether there are any, and which pods have one.

use super::Cache;
use crate::k8s::object_key::Key;
use crate::store::cached_pod::{self, SecretUser};
use crate::store::secret_index::ReferencesSecrets as _;
use crate::util::sync::lock;
use std::sync::Arc;

impl Cache {
    /// Whether the API server has pod certificates, once that is known.
    pub fn serves_pod_certificates(&self) -> Option<bool> {
        *lock(&self.pod_certificates)
    }

    pub(crate) fn set_serves_pod_certificates(&self, serves: bool) {
        if lock(&self.pod_certificates).replace(serves) != Some(serves) {
            self.trigger_pkis_for_pods(|_| true);
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

    /// The pods that mount a certificate of this Pki, and that people read.
    pub fn certified_users(&self, pki: &Key) -> Vec<Arc<SecretUser>> {
        let is_only = self.only_pki_for_pods(&pki.namespace).as_ref() == Some(pki);
        let entries = [Some(&*pki.name), None].map(|name| Arc::from(cached_pod::entry(name)));
        let entries = entries.into_iter().take(if is_only { 2 } else { 1 });
        let pods = self.pods.read();
        let users = entries.flat_map(|entry| {
            let entry = pki.beside(&entry);
            let users = cached_pod::users(&pods, &entry).cloned();
            users.collect::<Vec<_>>()
        });
        users.collect()
    }

    /// The number of pods that use a pod certificate of this Pki: those that have started.
    pub fn pods_certified_by(&self, pki: &Key) -> usize {
        let users = self.certified_users(pki).into_iter();
        users.filter(|pod| !pod.is_pending).count()
    }

    /// Triggers a reconcile of the Pkis for pods with such keys.
    pub fn trigger_pkis_for_pods(&self, is_meant: impl Fn(&Key) -> bool) {
        let pkis = self.known_pkis().into_iter();
        let for_pods = pkis.filter(|pki| pki.is_for_pods() && is_meant(pki.key()));
        self.trigger(for_pods.map(|pki| pki.key().clone()));
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
