//! Restarts workloads whose pods still use the certificate before: those that ask for it with the
//! annotation [`RESTART`](crate::api::annotations::RESTART).
//!
//! A program that reads its certificate once uses the old one until it ends. Its owner may let the
//! operator do what `kubectl rollout restart` does, some time after each renewal, spread out so
//! that not everything restarts together.
//!
//! 1. The reconciler hands each certificate in a Secret to [`Renewals`], which finds the pods that
//!    have read an older one ([`SecretUser::has_read_before`]).
//! 2. The module `queue` keeps the annotated workloads, and when each is due.
//! 3. The module `decision` decides on a due workload as it is then, and the [`RestartController`]
//!    acts.
//!
//! Nothing of this is stored. All follows from the age of the certificate, of the pods, and of the
//! last restart. So another leader, or the next process, neither forgets a restart nor repeats it.

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

pub use controller::RestartController;

mod controller;
mod decision;
mod notice;
mod queue;
mod workload;

/// Settings of restarts.
#[derive(Clone, Debug)]
pub struct RestartSettings {
    /// The time after a renewal over which restarts are spread.
    pub window: SignedDuration,
    /// The interval at which a fault that lasts is published again.
    pub reminder: Duration,
}

/// The reason for a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    /// The Secret.
    secret: Key,
    /// The Pki that it belongs to.
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

/// Hands certificates to the controller, for one term as leader. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Renewals(UnboundedSender<Renewal>);

impl Renewals {
    fn new() -> (Self, UnboundedReceiver<Renewal>) {
        let (sender, receiver) = unbounded();
        (Self(sender), receiver)
    }

    /// Records the certificate in the Secret of this Pki, if some of the pods that use it are
    /// older.
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
