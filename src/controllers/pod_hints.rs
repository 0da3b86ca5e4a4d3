//! Tells the pods that wait for something why it does not come.

pub mod name;
pub mod waiting;
