//! Statements of the pages, tried on a real cluster.

mod guides;
