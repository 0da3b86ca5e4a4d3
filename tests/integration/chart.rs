//! The chart: installation, upgrade, removal and monitoring.

mod crds;
mod monitoring;
mod traces;
mod upgrade;
