//! The PKI operator: certificates for application teams on Kubernetes, with errors they can read.
//!
//! # Layers
//!
//! ```text
//! operator.rs    wires the parts, drains them and stops
//! cli            settings, CRDs, self-test, the kubectl plugin
//! controllers    pki  ca  trust_bundle  restart  policy_status       webhook   review of an
//!                rejected_pki  pod_hints  ignored_metadata  clock              object, server
//! events         Events on pods and Pkis: text, rate, order
//! observability  log, traces, metrics
//! store          watches, and the caches they fill
//! model          plain data that several layers share
//! policy         the rule book, pure
//! k8s            conventions of the Kubernetes API
//! api            Pki, PkiPolicy, conditions, annotations
//! util, guide    text, hashes, locks; the pages for people
//! ```
//!
//! A module imports from lower layers only. Controllers import neither each other nor the webhook:
//! they share data of [`model`] and [`store`], and [`operator`] connects them. The test
//! `tests/architecture.rs` holds this.
//!
//! # The path of one object
//!
//! 1. A team applies a [`Pki`](api::Pki). The API server asks the [review](webhook::review), served
//!    by the [server](webhook::server). A denial reaches the person who typed at once.
//! 2. The [`RuleBook`](policy::RuleBook) judges: a pure function of the object and the policies of
//!    the platform team.
//! 3. A stored object reaches the [`store`], and from there the [reconciler](controllers::pki) of
//!    the replica that holds the [lease](k8s::lease). One pass observes,
//!    [plans](controllers::pki::plan), acts and concludes. It asks the same rule book, so an object
//!    that admission missed gets the same message.
//! 4. [`pki_certs`] makes the certificate, signed by the CA of [`controllers::ca`]. The reconciler
//!    writes it into the Secret that the Pki names.
//! 5. The status of the Pki has the outcome, and so have [`events`] on the
//!    [pods](store::cached_pod) that use the Secret. [`controllers::rejected_pki`] publishes Events
//!    on the pods of a Pki that was refused and never stored. [`controllers::pod_hints`] does so on
//!    pods that wait for a mistyped name, or for an object that nobody provides.
//! 6. [`controllers::restart`] restarts workloads that ask for it after a renewal.
//! 7. [`controllers::trust_bundle`] copies the CA certificates into the namespaces of clients.
//!
//! The [`guide`] has the pages for people, with the remedy for each reason. [`cli::kubectl`] asks
//! the same rule book at the command line, about files that nobody has applied.

pub mod api;
pub mod cli;
pub mod controllers;
pub mod events;
pub mod guide;
pub mod k8s;
pub mod model;
pub mod observability;
pub mod operator;
pub mod policy;
pub mod store;
pub mod util;
pub mod webhook;
