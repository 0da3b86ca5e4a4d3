//! Restarts workloads whose pods still use the certificate before: those that ask for it with the
//! annotation [`RESTART`](crate::api::annotations::RESTART).
//!
//! A program that reads its certificate once goes on with the old one until it ends, however often
//! the Secret is renewed. Its owner may let the operator do what `kubectl rollout restart` does,
//! some time after each renewal, spread out so that not everything restarts together.
//!
//! 1. The reconciler, whenever it has found a Secret in order, tells the [`Renewals`] of it; they
//!    notice pods that have read an older certificate ([`SecretUser::has_read_before`]).
//! 2. The module `queue` keeps which workloads are annotated, and which of them are due when.
//! 3. When one is due, the module `decision` looks at the workload as it is then, and the
//!    [`RestartController`] acts.
//!
//! Nothing of this is stored: what is to be done follows from the age of the certificate, of the
//! pods, and of the last restart. So another leader, or the next process, neither forgets a restart
//! nor repeats it.

use crate::api::Pki;
use crate::k8s::object_key::Key;
use crate::model::outcome::Certificate;
use crate::store::cached_pod::SecretUser;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pki_certs::renewal;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use workload::Workload;

pub use restarter::RestartController;

mod decision;
mod notice;
mod queue;
mod restarter;
mod workload;

/// How workloads are restarted.
#[derive(Clone, Debug)]
pub struct RestartSettings {
    /// Within what time after a renewal.
    pub window: SignedDuration,
    /// How often a fault that lasts is said again.
    pub reminder: Duration,
}

/// Why a workload is to be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    /// The Secret.
    secret: Key,
    /// The Pki that it belongs to: name and UID.
    pki: String,
    pki_uid: Option<String>,
    /// The certificate in the Secret.
    serial: String,
    /// When that was issued.
    issued: Timestamp,
}

/// A certificate that some pods are older than, and whose pods they are.
#[derive(Debug)]
struct Renewal {
    cause: Cause,
    behind: BTreeSet<Workload>,
}

/// The way in, for one term as leader. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Renewals(UnboundedSender<Renewal>);

impl Renewals {
    fn new() -> (Self, UnboundedReceiver<Renewal>) {
        let (sender, receiver) = unbounded();
        (Self(sender), receiver)
    }

    /// Takes note of the certificate that is in the Secret of this Pki, which these pods use. Asks
    /// nobody, and does nothing unless some of them are older.
    pub fn found(&self, pki: &Pki, certificate: &Certificate, users: &[Arc<SecretUser>]) {
        let issued = renewal::issued_at(certificate.not_before, certificate.not_after);
        let behind: BTreeSet<_> = users
            .iter()
            .filter(|pod| pod.has_read_before(issued))
            .filter_map(|pod| Workload::of(pod))
            .collect();
        if behind.is_empty() {
            return;
        }
        let cause = Cause {
            secret: Key::new(pki.namespace().unwrap_or_default(), pki.secret_name()),
            pki: pki.name_any(),
            pki_uid: pki.uid(),
            serial: certificate.serial.clone(),
            issued,
        };
        // Nobody listens when the term is over.
        let _ = self.0.unbounded_send(Renewal { cause, behind });
    }
}

#[cfg(test)]
mod tests;
