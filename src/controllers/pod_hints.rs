//! Publishes Events on pods that wait for something that will not come.

pub mod name;
pub mod waiting;
