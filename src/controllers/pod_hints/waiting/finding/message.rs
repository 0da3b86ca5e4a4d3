//! The messages of findings: the cause, and the remedy.

use crate::api::SIGNER;
use crate::api::annotations::POD_PKI;
use crate::events::{Aspect, EventTemplate};
use crate::k8s::object_key::Key;
use crate::model::output::{OPTIONAL, Output};
use crate::model::trust_bundle;
use crate::store::Removal;
use crate::util::text::{self, printable};

/// The number of files that are named.
const MAX_FILES: usize = 8;

pub(super) fn removed(secret: &Key, removal: &Removal) -> EventTemplate {
    let pki = printable(&format!("{}/{}", secret.namespace, removal.pki));
    let secret = printable(&secret.name);
    let message = |when: &str| {
        let fact = if removal.was_written {
            format!("Secret {secret} was removed when Pki {pki} was deleted{when}")
        } else {
            format!("Pki {pki}, which would have written Secret {secret}, was deleted{when}")
        };
        format!("{fact}: apply the Pki again, or remove the Secret from the pod")
    };
    // Another replica may have seen it a moment later.
    let at = format!(" at {}", removal.at);
    EventTemplate {
        topic: Some(message("")),
        ..EventTemplate::warning(Aspect::Removal, "PkiSecretRemoved", message(&at))
    }
}

pub(super) fn namesake(pki: &Key, writes: &str) -> String {
    let (name, writes) = (printable(&pki.name), printable(writes));
    format!(
        "no Pki provides Secret {name}: Pki {pki} writes Secret {writes}. Write {writes} in the pod, or secretName: {name} in the \
         spec of the Pki"
    )
}

pub(super) fn for_pods(pki: &Key) -> String {
    let name = printable(&pki.name);
    format!(
        "Pki {pki} has delivery: Pod and writes no Secret {name}: mount a podCertificate of the signer {SIGNER} with \
         userAnnotations: {{{POD_PKI}: {name}}} in the pod, or write delivery: Secret in the spec of the Pki"
    )
}

pub(super) fn not_requested(config_map: &Key, label: Option<&str>) -> String {
    let Key { namespace, name } = config_map;
    let (name, key) = (printable(name), trust_bundle::LABEL);
    let why = label.map(printable).map_or_else(
        || format!("does not have the label {key}"),
        |label| format!("has the label {key}=\"{label}\", which is not true"),
    );
    format!(
        "there is no ConfigMap {name} with the CA bundle, because namespace {namespace} {why}: label the namespace (kubectl label \
         namespace {namespace} --overwrite {key}=true), or ask the platform team to do so"
    )
}

pub(super) fn missing_files(
    secret: &Key,
    pki: &Key,
    files: &[Box<str>],
    present: &[String],
) -> String {
    let mut remedies: Vec<_> = files
        .iter()
        .map(|file| remedy(file, pki, present))
        .collect();
    remedies.dedup();
    remedies.truncate(MAX_FILES);
    format!(
        "Secret {} of Pki {pki} has no {}: {}; {}",
        printable(&secret.name),
        names(files),
        remedies.join("; "),
        there_are(present)
    )
}

/// The change after which a file is there, or another one is named.
pub(super) fn remedy(file: &str, pki: &Key, present: &[String]) -> String {
    if let Some(output) = Output::of(file) {
        return add(output, pki);
    }
    let known = present.iter().map(String::as_str).chain(OPTIONAL);
    match text::nearest(file, known) {
        Some(near) if present.iter().any(|it| it == near) => format!("did you mean {near}?"),
        Some(near) => {
            let add = Output::of(near).map_or_else(String::new, |output| add(output, pki));
            format!("did you mean {near}? Then {add}")
        }
        None => format!("remove {} from the pod", printable(file)),
    }
}

pub(super) fn add(output: Output, pki: &Key) -> String {
    let (field, value) = (output.field(), output.example());
    format!(
        "add spec.outputs.{field} to Pki {} ({field}: {value})",
        pki.name
    )
}

pub(super) fn there_are(present: &[String]) -> String {
    match present {
        [] => "it is empty".to_owned(),
        [only] => format!("the only file is {}", printable(only)),
        files => format!("the files are {}", text::first_of(files, MAX_FILES)),
    }
}

pub(super) fn names(files: &[Box<str>]) -> String {
    let files: Vec<_> = files.iter().map(ToString::to_string).collect();
    text::first_of(&files, MAX_FILES)
}
