//! Refusals, warnings and stored objects at `kubectl apply`.

mod admission_policy;
mod agreement;
mod annotations;
mod calls;
mod cel_costs;
mod dns_names;
mod kubectl_commands;
mod load;
mod messages;
mod policies;
mod schema;
mod secret_in_use;
mod transitions;
pub(crate) mod webhook;
