//! The facts on which a look at a Pki decides: from the caches, and where those do not tell enough,
//! from the Secret.

use super::plan::{Observed, SecretState};
use super::{Context, ReconcileError, content};
use crate::api::{Keystore, Outputs, Pki};
use crate::controllers::pki::content::formats::Passwords;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::ca::Ca;
use crate::policy::Approved;
use crate::store;
use crate::store::claims;
use crate::util::sync;
use kube::ResourceExt;

/// Gathers what is known without asking.
pub(super) fn observe<'a>(pki: &'a Pki, ca: &'a Ca, context: &Context) -> Observed<'a> {
    let cache = &context.cache;
    let (own, key) = (Key::of(pki), secret::key(pki));
    let rules = cache.rules();
    let verdict = store::judging(&rules, &own.namespace, || rules.evaluate(pki));
    let versions = |outputs: &Outputs| Passwords {
        versions: versions(pki, outputs, context),
        ..Passwords::default()
    };
    let passwords = verdict.as_ref().map(|approved| Passwords {
        in_force: other_outputs(approved).map(|it| Box::new(versions(it))),
        ..versions(&approved.outputs)
    });
    let passwords = passwords.unwrap_or_default();
    let rival = claims::winner(&sync::read(&cache.pkis), &key)
        .filter(|winner| **winner != own)
        .cloned();
    let mut observed = Observed {
        pki,
        verdict,
        rival,
        secret: SecretState::Unread,
        passwords,
        ca,
    };
    observed.secret = sight(&observed, &key, context);
    observed
}

/// What the cache tells of the Secret.
fn sight(observed: &Observed<'_>, secret: &Key, context: &Context) -> SecretState {
    let (cache, findings) = (&context.cache, &context.findings);
    if !cache.knows_secrets_of(&secret.namespace) {
        return SecretState::Unread;
    }
    if let Some(version) = cache.secret_version(secret) {
        let verified = findings.recall(observed, &version);
        return verified.map_or(SecretState::Unread, SecretState::Unchanged);
    }
    // The cache may be behind. That matters little where a create follows, which fails then; but
    // one that was just written is there. To make one with keystores, their passwords have to be
    // read in any case.
    let is_absent = observed.verdict.is_ok()
        && observed.rival.is_none()
        && observed.passwords.versions.is_empty()
        && !findings.knows(&Key::of(observed.pki));
    if is_absent {
        SecretState::Absent
    } else {
        SecretState::Unread
    }
}

/// Reads what the caches do not have: the Secret, and those with the passwords of its keystores.
pub(super) async fn read(
    observed: &mut Observed<'_>,
    context: &Context,
) -> Result<(), ReconcileError> {
    let pki = observed.pki;
    let secret = context.read_secret(&secret::key(pki)).await?;
    if let Ok(approved) = &observed.verdict {
        let mut passwords = read_passwords(pki, &approved.outputs, context).await?;
        if let Some(outputs) = other_outputs(approved) {
            passwords.in_force = Some(Box::new(read_passwords(pki, outputs, context).await?));
        }
        observed.passwords = passwords;
    }
    observed.secret = if let Some(secret) = secret {
        let pkis = sync::read(&context.cache.pkis);
        let owner = content::owner(&secret, pki, &pkis);
        SecretState::Stored(Box::new(secret), owner)
    } else {
        context.findings.forget(&Key::of(pki));
        SecretState::Absent
    };
    Ok(())
}

async fn read_passwords(
    pki: &Pki,
    outputs: &Outputs,
    context: &Context,
) -> Result<Passwords, ReconcileError> {
    let mut passwords = Passwords::default();
    for (keystore, password) in [
        (&outputs.pkcs12, &mut passwords.pkcs12),
        (&outputs.jks, &mut passwords.jks),
    ] {
        let Some(keystore) = keystore else { continue };
        let secret = context.read_secret(&password_key(pki, keystore)).await?;
        let version = secret.as_ref().and_then(ResourceExt::resource_version);
        passwords.versions.push(version.unwrap_or_default());
        *password = Some(Passwords::read(keystore, secret.as_ref()));
    }
    Ok(passwords)
}

/// The further files that are in force, if their keystores are others than those of the next
/// certificate.
fn other_outputs(approved: &Approved) -> Option<&Outputs> {
    let (in_force, next) = (&approved.in_force().outputs, &approved.outputs);
    let is_other = (&in_force.pkcs12, &in_force.jks) != (&next.pkcs12, &next.jks);
    is_other.then_some(in_force)
}

/// The versions of the Secrets with the passwords, in the order in which they are read.
fn versions(pki: &Pki, outputs: &Outputs, context: &Context) -> Vec<String> {
    let versions = outputs.keystores().map(|keystore| {
        let secret = context.cache.secret_version(&password_key(pki, keystore));
        secret.map_or_else(String::new, |version| version.resource.into())
    });
    versions.collect()
}

fn password_key(pki: &Pki, keystore: &Keystore) -> Key {
    let namespace = pki.namespace().unwrap_or_default();
    Key::new(namespace, &*keystore.password_secret_ref.name)
}
