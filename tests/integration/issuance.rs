//! Certificates and their Secrets.

mod certificates;
mod fairness;
mod main_path;
mod ownership;
mod pod_certificates;
mod policy_changes;
mod requests;
mod restore;
mod verifiers;
mod workload_restarts;
