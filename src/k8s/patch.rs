//! How the operator writes: under its own name, and bound to the version that the decision was made
//! on.

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{PatchParams, PostParams};
use kube::core::Status;
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

/// Whether the object has another version by now, or exists already; or a `test` of a JSON patch
/// failed.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.is_conflict() || status.is_already_exists() || is_failed_test(status))
}

/// The API server does not say which operation of a JSON patch it could not apply, or why.
fn is_failed_test(status: &Status) -> bool {
    const SAID: &str = "the server rejected our request due to an error in our request";
    status.code == 422 && status.message == SAID
}

/// Whether the API server will not have it, whoever else does what: a permission is missing, most
/// likely.
pub fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 409 | 429))
}

/// Whether nothing can be made there any more, as the namespace is being deleted.
pub fn is_namespace_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// The API server's own sentence (a quota, a missing permission), without this client's wrapping.
pub fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
