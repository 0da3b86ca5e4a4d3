//! Warnings about a change that takes a Secret, or a file of it, from the pods that use it.

use super::{Request, ReviewedObject, ValidationContext};
use crate::api::annotations::KEEP_SECRET;
use crate::api::conditions::MAX_FORMER_SECRETS;
use crate::api::{Outputs, Pki};
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::output::{OPTIONAL, Output};
use crate::policy::Approved;
use crate::store::cached_pod::{self, SecretUser};
use crate::util::text::{self, printable};
use kube::core::admission::Operation;
use serde::Deserialize as _;
use serde_json::Value;
use std::sync::Arc;

const MAX_NAMED_PODS: usize = 5;
/// The Secret of a Pki, and those it wrote before.
const MAX_SECRETS: usize = 1 + MAX_FORMER_SECRETS;

/// Warns of an update that takes the Secret, or files of it, from the pods that use them.
pub(super) fn of_update(
    request: &Request,
    pki: &Pki,
    approved: &Approved,
    context: &ValidationContext<'_>,
) -> Vec<String> {
    let Some(old) = old_object(request) else {
        return Vec::new();
    };
    let own = Key::of(pki);
    let former = own.beside(&secret_of(old, &own).into());
    if *former.name == *approved.secret_name {
        return removed_files(old, &former, approved, context);
    }
    let users = users_of_own(&own, &former, context);
    let renamed = counted(&users, &former, "uses", "use").map(|who| {
        let end = old.status.get("notAfter").and_then(Value::as_str);
        let end = end.map_or_else(String::new, |end| format!(" at {}", printable(end)));
        let current = printable(&approved.secret_name);
        format!(
            "spec.secretName: {who}; the Pki writes {current} from now on, so write {current} in the pods: Secret {} is no \
             longer renewed, and is removed when no pod uses it, at the latest when its certificate ends{end}",
            printable(&former.name)
        )
    });
    renamed.into_iter().collect()
}

/// Warns of a deletion after which pods lack their Secrets. The deletion passes.
pub(super) fn of_deletion(request: &Request, context: &ValidationContext<'_>) -> Vec<String> {
    let Some(old) = old_object(request).filter(|_| !keeps_secrets(request)) else {
        return Vec::new();
    };
    let name = old.metadata.name.as_deref().unwrap_or(&request.name);
    let own = Key::new(request.namespace.clone().unwrap_or_default(), name);
    let formers = old.status.get("formerSecrets");
    let formers = formers.and_then(Value::as_array).into_iter().flatten();
    let formers = formers.filter_map(|former| former.get("name")?.as_str());
    let secrets = std::iter::once(secret_of(old, &own)).chain(formers);
    let warnings = secrets.take(MAX_SECRETS).filter_map(|secret| {
        let secret = own.beside(&secret.into());
        let users = users_of_own(&own, &secret, context);
        let who = counted(&users, &secret, "uses", "use")?;
        Some(format!(
            "{who}, which is removed with Pki {}: a pod that uses it cannot start again; to keep the Secret, annotate the Pki \
             with {}=true before it is deleted",
            printable(&own.to_string()),
            KEEP_SECRET
        ))
    });
    warnings.collect()
}

/// Whether the Secrets stay: by the annotation, or because dependents are orphaned.
fn keeps_secrets(request: &Request) -> bool {
    let annotations = old_object(request).and_then(|old| old.metadata.annotations.as_ref());
    let options = request.options.as_ref();
    let policy = options.and_then(|it| it.propagation_policy.as_deref());
    policy == Some("Orphan") || secret::is_kept_by(annotations)
}

fn old_object(request: &Request) -> Option<&ReviewedObject> {
    let is_change = matches!(request.operation, Operation::Update | Operation::Delete);
    let old = request.old_object.as_ref().filter(|_| is_change)?;
    old.metadata.deletion_timestamp.is_none().then_some(old)
}

fn secret_of<'a>(old: &'a ReviewedObject, own: &'a Key) -> &'a str {
    let name = old.spec.get("secretName").and_then(Value::as_str);
    name.unwrap_or(&own.name)
}

/// Warns of the files that the Secret had so far and that pods name.
fn removed_files(
    old: &ReviewedObject,
    secret: &Key,
    approved: &Approved,
    context: &ValidationContext<'_>,
) -> Vec<String> {
    let outputs = old.spec.get("outputs");
    let outputs = outputs.and_then(|outputs| Outputs::deserialize(outputs).ok());
    let outputs = outputs.unwrap_or_default();
    let removed = OPTIONAL.into_iter().filter(|file| {
        Output::of(file).is_some_and(|output| output.is_in(&outputs))
            && !Output::wants(&approved.outputs, file)
    });
    let pods = context.pods.read();
    let warnings = removed.filter_map(|file| {
        let users = cached_pod::users(&pods, secret).filter(|pod| pod.needs_file(&secret.name, file));
        let users: Vec<_> = users.cloned().collect();
        let who = counted(&users, secret, "reads", "read")?;
        Some(format!(
            "spec.outputs: {file} is removed, and {who} by that name: a pod that reads it cannot start again"
        ))
    });
    warnings.collect()
}

/// The pods that use this Secret, unless others than this Pki provide it.
fn users_of_own(own: &Key, secret: &Key, context: &ValidationContext<'_>) -> Vec<Arc<SecretUser>> {
    if super::predicted_obstacle(own, secret, context).is_some() {
        return Vec::new();
    }
    let pods = context.pods.read();
    cached_pod::users(&pods, secret).cloned().collect()
}

/// Counts and names pods, as in `2 pods use Secret tls (a, b)`; nothing where there are none.
fn counted(users: &[Arc<SecretUser>], secret: &Key, one: &str, many: &str) -> Option<String> {
    let (count, verb) = match users {
        [] => return None,
        [_] => ("1 pod".to_owned(), one),
        _ => (format!("{} pods", users.len()), many),
    };
    let names: Vec<_> = users.iter().map(|pod| pod.key.name.to_string()).collect();
    Some(format!(
        "{count} {verb} Secret {} ({})",
        printable(&secret.name),
        text::first_of(&names, MAX_NAMED_PODS)
    ))
}

#[cfg(test)]
mod tests;
