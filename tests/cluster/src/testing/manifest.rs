//! Manifests of Pkis, policies and pods.

use serde_json::{Value, json};

/// A Pki with this spec.
pub fn pki(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": name}, "spec": spec})
}

/// A `PkiPolicy` with this spec.
pub fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "box.com/v1", "kind": "PkiPolicy", "metadata": {"name": name}, "spec": spec})
}

/// A pod with one container whose image does not exist, and with these further fields of the spec.
pub fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// The field `volumes` of a pod that mounts this Secret.
pub fn secret_volume(secret: &str) -> Value {
    json!({"volumes": [{"name": "v", "secret": {"secretName": secret}}]})
}

/// A list, which `kubectl create` takes in one call.
pub fn list(items: impl IntoIterator<Item = Value>) -> Value {
    let items: Vec<_> = items.into_iter().collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Puts an object into a namespace.
pub fn in_namespace(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = namespace.into();
    object
}
