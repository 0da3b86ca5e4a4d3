//! Writes of the operator: under its own name, and bound to the version that was decided on.

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name under which the operator writes, as `managedFields` show it.
pub const FIELD_MANAGER: &str = "pki-operator";

/// Parameters of a create.
pub fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

/// Parameters of a patch.
pub fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// The labels of what the operator makes.
pub fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/managed-by".into(), FIELD_MANAGER.into())])
}

/// Whether labels or annotations are all there, with these values.
pub fn has_all(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| found.get(key) == Some(value))
}

/// Whether the operator wrote this object: it has these labels, and the operator among its
/// managers. Labels alone prove nothing: anybody may set them.
pub fn is_ours(object: &ObjectMeta, labels: &BTreeMap<String, String>) -> bool {
    let is_labelled = object
        .labels
        .as_ref()
        .is_some_and(|found| has_all(found, labels));
    let mut managers = object.managed_fields.iter().flatten();
    is_labelled && managers.any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Makes a merge patch one of just this object in just this version: if it has changed, or has been
/// deleted and made again, the API server answers 409 Conflict.
pub fn bind(change: &mut Value, observed: &impl ResourceExt) {
    change["metadata"]["uid"] = json!(observed.uid());
    change["metadata"]["resourceVersion"] = json!(observed.resource_version());
}

/// A JSON patch with these operations of just this object in just this version.
pub fn unless_changed(
    observed: &impl ResourceExt,
    operations: impl IntoIterator<Item = PatchOperation>,
) -> Patch {
    let meta = observed.meta();
    let tests = [
        ("uid", &meta.uid),
        ("resourceVersion", &meta.resource_version),
    ];
    let tests = tests.map(|(field, value)| test(&["metadata", field], json!(value)));
    Patch(tests.into_iter().chain(operations).collect())
}

/// An operation that fails where another value stands.
pub fn test(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Test(TestOperation { path, value })
}

/// An operation that removes a value.
pub fn remove(path: &[&str]) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Remove(RemoveOperation { path })
}
