//! The custom resource definitions of both kinds.

use super::{Pki, PkiPolicy};
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// Label of a custom resource definition: the version of the operator.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Both custom resource definitions in YAML, ready for `kubectl apply --server-side -f -`.
pub fn crds_yaml() -> String {
    let mut documents = String::new();
    for crd in definitions() {
        let yaml = serde_saphyr::to_string(&crd).expect("a CRD is YAML, as all JSON is");
        documents += "---\n";
        documents += yaml.trim_start_matches("---\n");
    }
    documents
}

/// Both custom resource definitions.
pub fn definitions() -> [Value; 2] {
    [definition::<Pki>(), definition::<PkiPolicy>()]
}

/// The schema of a kind, as the API server has it.
pub fn schema<K: CustomResourceExt>() -> Value {
    let mut crd = definition::<K>();
    let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema");
    schema.expect("a definition has a schema").take()
}

fn definition<K: CustomResourceExt>() -> Value {
    let mut crd = serde_json::to_value(K::crd()).expect("a CRD made of strings and maps is JSON");
    unwrap_descriptions(&mut crd);
    crd["metadata"]["labels"] = json!({ VERSION_LABEL: env!("CARGO_PKG_VERSION") });
    // The definition outlives its Helm release, because all Pkis would go with it.
    crd["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    crd
}

/// Removes line breaks of the sources: `kubectl explain` adds its own.
pub(super) fn unwrap_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    _ => unwrap_descriptions(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}
