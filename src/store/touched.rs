//! The namespaces in which something has changed since its listener last asked.

use crate::util::sync::lock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Changed namespaces, each once, until they are taken.
#[derive(Debug, Default)]
pub struct Touched {
    namespaces: Mutex<BTreeSet<Arc<str>>>,
    changed: Notify,
}

impl Touched {
    /// Notes a change.
    pub(super) fn note(&self, namespace: &Arc<str>) {
        if lock(&self.namespaces).insert(namespace.clone()) {
            self.changed.notify_one();
        }
    }

    /// Waits for changes, and takes the namespaces. For one listener.
    pub async fn next(&self) -> BTreeSet<Arc<str>> {
        loop {
            let taken = std::mem::take(&mut *lock(&self.namespaces));
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_namespace_is_taken_once() {
        let touched = Touched::default();
        for namespace in ["b", "a", "b"] {
            touched.note(&namespace.into());
        }
        let taken = touched.next().await;
        assert_eq!(taken, BTreeSet::from(["a".into(), "b".into()]));
        let empty = tokio::time::timeout(std::time::Duration::from_millis(10), touched.next());
        assert!(empty.await.is_err());
        touched.note(&"a".into());
        assert_eq!(touched.next().await.len(), 1);
    }
}
