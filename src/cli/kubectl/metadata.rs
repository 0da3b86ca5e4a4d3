//! Judges the metadata of manifests: names, labels, annotations and finalizers as the API server
//! does (`k8s.io/apimachinery/pkg/api/validation`), and entries of `box.com/` by the table of the
//! operator.

use super::finding::{Fault, reason};
use super::schema::ManifestKind;
use crate::api::annotations::{self, Carrier, MAX_FAULTS, Place};
use crate::controllers::ignored_metadata;
use crate::policy::{is_key, is_label, is_label_value};
use crate::util::text::{is_subdomain, printable};
use crate::util::yaml::{Node, YamlContent, YamlKey};
use serde_json::Value;

/// The size of all annotations of an object.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The errors in the metadata of a Pki or `PkiPolicy`; the schema finds values that are no text.
pub(super) fn errors(kind: ManifestKind, object: &Node) -> Vec<Fault> {
    let Some(metadata) = object.get("metadata") else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    names(kind, metadata, &mut faults);
    labels(metadata, &mut faults);
    annotations_of(metadata, &mut faults);
    finalizers(metadata, &mut faults);
    faults
}

fn names(kind: ManifestKind, metadata: &Node, faults: &mut Vec<Fault>) {
    type Rule = (&'static str, fn(&str) -> bool, &'static str, &'static str);
    const NAME: &str = "write lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, for example app1-pki";
    const LABEL: &str = "write at most 63 lower-case letters, digits and '-', for example team-a";
    const RULES: [Rule; 3] = [
        ("name", is_subdomain, "a name", NAME),
        ("generateName", is_prefix, "the beginning of a name", NAME),
        ("namespace", is_label, "the name of a namespace", LABEL),
    ];
    for (field, is_valid, what, advice) in RULES {
        let is_dropped = field == "namespace" && kind == ManifestKind::PkiPolicy;
        let value = metadata.text(field).filter(|it| !it.is_empty());
        if let Some(value) = value.filter(|it| !is_dropped && !is_valid(it)) {
            let message = format!("{} is not {what}: {advice}", quoted(value));
            let field = format!("metadata.{field}");
            faults.push(Fault::new(field, reason::METADATA, message));
        }
    }
}

/// Whether the API server can make a name of a prefix: it keeps 58 characters and adds five.
fn is_prefix(prefix: &str) -> bool {
    let has_room = prefix.len() <= 253;
    let kept = prefix.get(..58).unwrap_or(prefix);
    has_room && !prefix.ends_with('.') && is_subdomain(&format!("{kept}aaaaa"))
}

fn no_key(key: &str) -> String {
    format!(
        "{} is not a key: write at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it if you like, for \
         example example.com/team",
        quoted(key)
    )
}

fn labels(metadata: &Node, faults: &mut Vec<Fault>) {
    for (key, value) in entries(metadata, Place::Labels) {
        if !is_key(&key.name) {
            faults.push(fault(Place::Labels, key, no_key(&key.name)));
        } else if !is_label_value(value) {
            let message = format!(
                "{} cannot be the value of {}: write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a \
                 letter or digit",
                quoted(value),
                quoted(&key.name)
            );
            faults.push(fault(Place::Labels, key, message));
        }
    }
}

fn annotations_of(metadata: &Node, faults: &mut Vec<Fault>) {
    let mut bytes = 0;
    for (key, value) in entries(metadata, Place::Annotations) {
        bytes += key.name.len() + value.len();
        // Case does not matter here.
        if !is_key(&key.name.to_ascii_lowercase()) {
            faults.push(fault(Place::Annotations, key, no_key(&key.name)));
        }
    }
    if bytes > MAX_ANNOTATION_BYTES {
        let message =
            format!("{bytes} bytes are too many: write at most {MAX_ANNOTATION_BYTES} in all");
        let field = "metadata.annotations";
        faults.push(Fault::new(field, reason::METADATA, message));
    }
}

fn finalizers(metadata: &Node, faults: &mut Vec<Fault>) {
    let Some(list) = metadata.get("finalizers") else {
        return;
    };
    for (index, element) in list.elements().iter().enumerate() {
        if let YamlContent::Scalar(Value::String(name), _) = &element.content
            && !is_key(name)
        {
            let field = format!("metadata.finalizers[{index}]");
            faults.push(Fault::new(field, reason::METADATA, no_key(name)));
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text))
}

/// A fault of an entry. Its path is that of the map, because a key may have dots.
fn fault(place: Place, key: &YamlKey, message: String) -> Fault {
    let field = format!("metadata.{}", place.field());
    Fault::new(field, reason::METADATA, message).at(key.at)
}

fn entries(metadata: &Node, place: Place) -> impl Iterator<Item = (&YamlKey, &str)> {
    let map = metadata.get(place.field()).into_iter();
    let entries = map.flat_map(Node::entries);
    entries.filter_map(|(key, value)| match &value.content {
        YamlContent::Scalar(Value::String(text), _) => Some((key, text.as_str())),
        _ => None,
    })
}

/// The entries of `box.com/` without an effect, in the metadata of an object and its pod template.
pub(super) fn ignored(carrier: Carrier, object: &Node) -> Vec<Fault> {
    let own = object.get("metadata").map(|it| (carrier, "metadata", it));
    let template = |path: &'static str| {
        let mut steps = path.split('.');
        let found = steps.try_fold(object, |node, step| node.get(step));
        found.map(|it| (Carrier::PodTemplate, path, it))
    };
    let pod = template("spec.template.metadata");
    let job = template("spec.jobTemplate.spec.template.metadata");
    let mut faults = Vec::new();
    for (carrier, path, metadata) in [own, pod, job].into_iter().flatten() {
        for place in [Place::Labels, Place::Annotations] {
            faults.extend(entries(metadata, place).filter_map(|(key, value)| {
                let message = annotations::fault(carrier, place, &key.name, value)?;
                let field = format!("{path}.{}", place.field());
                Some(Fault::new(field, ignored_metadata::REASON, message).at(key.at))
            }));
        }
    }
    faults.truncate(MAX_FAULTS);
    faults
}

pub(super) fn carrier(object: &Node) -> Carrier {
    let text = |field| object.text(field).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Namespace") => Carrier::Namespace,
        ("v1", "Secret") => Carrier::Secret,
        ("v1", "ConfigMap") => Carrier::ConfigMap,
        ("v1", "Pod") => Carrier::Pod,
        ("apps/v1", "Deployment") => Carrier::Deployment,
        ("apps/v1", "StatefulSet") => Carrier::StatefulSet,
        ("apps/v1", "DaemonSet") => Carrier::DaemonSet,
        _ => Carrier::Other,
    }
}

#[cfg(test)]
mod tests;
