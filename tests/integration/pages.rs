//! What the pages say holds on a real cluster.

mod guides;
