//! What the chart installs, upgrades and removes, and what monitoring makes of it.

mod crds;
mod monitoring;
mod traces;
mod upgrade;
