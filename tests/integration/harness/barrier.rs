//! A proof that nothing else happens, without a pause whose length is a guess.

use super::{Installed, Namespace};
use pki_cluster::testing::manifest;
use serde_json::json;

impl Installed {
    /// Waits until the operator has processed everything that was there before, and has published
    /// its Events.
    ///
    /// Objects of a fresh namespace go the same way later: a pod and a Pki through the watches, the
    /// queue and the writes, then a refusal of the webhook through the queue of Events. The
    /// service name `app1` must be permitted.
    pub(crate) fn barrier(&self) {
        let ns = self.barrier_of_pkis();
        ns.pod_with("waits", "refused");
        let refused = manifest::pki("refused", &json!({"serviceName": "appp1"}));
        // Where there is no webhook it is stored, and the pod gets an Event all the same.
        let _ = self.api.create(&ns.name, &refused);
        ns.wait_for_events("Pod", "waits", 1);
    }

    /// Waits for the same without the Events. Returns the fresh namespace.
    pub(crate) fn barrier_of_pkis(&self) -> Namespace<'_> {
        let ns = self.namespace("barrier");
        ns.pod_with("mounts", "issued");
        ns.apply_pki("issued", r#"{"serviceName": "app1"}"#);
        ns.wait_until_ready("issued");
        ns
    }
}

impl Namespace<'_> {
    /// Waits as [`Installed::barrier`] does.
    pub(crate) fn barrier(&self) {
        self.installed.barrier();
    }
}
