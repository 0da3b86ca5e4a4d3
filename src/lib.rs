//! The PKI operator: certificates for application teams on Kubernetes, with errors they can read.
//!
//! # The path of one object
//!
//! 1. A team applies a [`Pki`](api::Pki). The API server asks [`admission`], served by [`serve`], to fill in defaults
//!    and to judge it. A refusal is read at once, by the person who typed.
//! 2. The judge is the [`policy::RuleBook`], a pure function of the object and the policies of the platform team.
//! 3. What is stored reaches the [`cache`], and from there the leader's ([`leader`]) reconciler: [`reconcile`] observes,
//!    [plans](reconcile::plan) and acts. It asks the same rule book, so an object that slipped past admission hears the
//!    same words.
//! 4. Certificates come from [`pki_certs`], signed by the CA that [`ca`] looks after, and go into the Secret that the
//!    Pki names.
//! 5. What went wrong is said where people look: in the status of the Pki, and by [`events`] on the [`pods`] that use
//!    the Secret.
//!    A Pki that was refused and never stored is kept in mind by [`refusals`], for the pods that wait all the same;
//!    [`hints`] help those that wait for a Secret whose name is mistyped, [`waiting`] those that wait
//!    for something that a Pki or a namespace does not ask for.
//! 6. Workloads that ask for it are [restarted](restarts) when the Secret of their pods was renewed.
//! 7. Clients learn whom to trust from the copies that [`trust`] keeps in their namespaces.
//!
//! What people read about all that, and what they can do about each reason, is in the [`guide`].
//! [`kubectl`] asks the same rule book at the command line, about files that nobody has applied yet.

pub mod api;
pub mod cli;
pub mod controllers;
pub mod events;
pub mod guide;
pub mod k8s;
pub mod observability;
pub mod operator;
pub mod policy;
pub mod store;
pub mod util;
pub mod webhook;
