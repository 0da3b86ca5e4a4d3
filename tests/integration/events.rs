//! What people read where their pods wait.

mod every_fault;
mod kubectl_lines;
mod pods;
mod publishing;
mod rejected_pkis;
mod storm;
mod waiting_pods;
