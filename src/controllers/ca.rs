//! The CA that signs: which one, which others are trusted beside it, and what to do when it is
//! lost.
//!
//! Its keys lie in a Secret: `tls.crt` and `tls.key`, and while it is being replaced its successor
//! as `next.crt` and `next.key`; those that signed before, for a while, as `retired-<id>.crt` and
//! `retired-<id>.key`. The rest of its state lies in a ConfigMap of the same name, the
//! [`CaState`](crate::model::ca_state::CaState): which certificate signs, which ones have been
//! published, and since when. So the loss of one of the two is noticed by the other: a Secret that
//! is deleted, damaged or replaced is an [`Alarm`](crate::model::ca::Alarm), never a new CA.
//!
//! # A rotation
//!
//! 1. A successor is put into the Secret: by the [`CaController`] when the CA's last third begins
//!    or when the Secret is annotated with [`ROTATE_NOW`], by the platform team when it has brought
//!    the CA.
//! 2. The successor is **published**: every `ca.crt` gets both roots. Nothing is signed with it.
//! 3. When every Secret has both, and one step of time has passed for everybody to reload them, it
//!    **signs**. The leaves of the old one are replaced, spread over another step. The old key is
//!    kept, so that nothing is lost if a wrong clock was the reason for all this.
//! 4. When the old one's last leaf is replaced or has expired, and one step has passed for servers
//!    to reload theirs, its root is **withdrawn**.
//!
//! Nobody can stop that: a Secret that cannot be written is waited for, but [not for
//! ever](rotation::RotationTimes), and is [named](crate::model::rollout::Blocker). Its old root
//! stays trusted as long as it is used; unless the rotation is
//! [forced](rotation::RotationRequest::Force), because a key was stolen.
//!
//! So a peer that reloads its mounted files within a step verifies every other at any moment.

pub use controller::{CaController, CaSettings};

mod controller;
mod placement;
pub mod progress;
pub mod rotation;
pub mod summary;

pub use crate::api::annotations::{ACCEPT, ROTATE_NOW};
