//! Gathers the facts on which a reconcile decides: from the caches, and where those do not have
//! enough, from the API server.

use super::plan::facts::{self, Observed, SecretState, is_being_deleted};
use super::{Context, ReconcileError, content};
use crate::api::{Keystore, Outputs, Pki};
use crate::controllers::pki::content::formats::Passwords;
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, secret};
use crate::model::ca::Ca;
use crate::model::renewal_request::{self, RENEW_NOW, RenewalRequestState};
use crate::policy::{Approved, Violation};
use crate::store;
use crate::store::claims;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use std::borrow::Cow;

/// Gathers the facts about a Pki.
pub(super) async fn observe<'a>(
    pki: Pki,
    ca: &'a Ca,
    context: &Context,
    now: Timestamp,
) -> Result<Observed<'a>, ReconcileError> {
    let mut observed = from_caches(pki, ca, context, now);
    let cached = cached_secret(&observed, context);
    let has_secrets = context.cache.rules().settings.has_secrets;
    if has_secrets && facts::needs_secret(&observed, cached.as_ref(), now) {
        match read(&mut observed, context).await {
            Err(ReconcileError::ReadSecret(_, source))
                if api_error::is_refusal(&source) && !is_being_deleted(&observed.pki) =>
            {
                observed.secret = SecretState::Unreadable((&source).into());
            }
            read => read?,
        }
    } else if let Some(cached) = cached {
        observed.secret = cached;
    }
    if facts::needs_deletion_check(&observed) {
        observed.is_leaving = is_leaving(&observed.pki, context).await;
    }
    Ok(observed)
}

fn from_caches<'a>(mut pki: Pki, ca: &'a Ca, context: &Context, now: Timestamp) -> Observed<'a> {
    let cache = &context.cache;
    let request = renewal_request::of(&pki, now).filter(|_| !is_being_deleted(&pki));
    if request == Some(RenewalRequestState::New) {
        pki.status = Some(renewal_request::served(&pki, now));
    }
    let (own, key) = (Key::of(&pki), secret::key(&pki));
    let verdict = verdict(&pki, request, context);
    let versions = |outputs: &Outputs| Passwords {
        versions: versions(&pki, outputs, context),
        ..Passwords::default()
    };
    let passwords = verdict.as_ref().map(|approved| Passwords {
        in_force: other_outputs(approved).map(|it| Box::new(versions(it))),
        ..versions(&approved.outputs)
    });
    let passwords = passwords.unwrap_or_default();
    let rival = claims::winner(&cache.pkis.read(), &key)
        .filter(|winner| **winner != own)
        .cloned();
    Observed {
        request,
        rival,
        passwords,
        ..Observed::of(pki, verdict, ca)
    }
}

/// The verdict of the rule book; none of a Pki that is being deleted. A request that is served now
/// loses its annotation, which a rule in CEL may read.
fn verdict(
    pki: &Pki,
    request: Option<RenewalRequestState>,
    context: &Context,
) -> Result<Approved, Vec<Violation>> {
    if is_being_deleted(pki) {
        return Err(Vec::new());
    }
    let mut pki = Cow::Borrowed(pki);
    if request == Some(RenewalRequestState::New) {
        pki.to_mut().annotations_mut().remove(RENEW_NOW);
    }
    let (namespace, rules) = (pki.namespace().unwrap_or_default(), context.cache.rules());
    store::evaluate_with(&rules, &namespace, || rules.evaluate(&pki))
}

/// State of the Secret, if the caches have enough to know it.
fn cached_secret(observed: &Observed<'_>, context: &Context) -> Option<SecretState> {
    let (cache, verified) = (&context.cache, &context.verified_secrets);
    let secret = secret::key(&observed.pki);
    if !cache.knows_secrets_of(&secret.namespace) {
        return None;
    }
    if let Some(version) = cache.secret_version(&secret) {
        return verified
            .recall(observed, &version)
            .map(SecretState::Unchanged);
    }
    // The cache may be behind. That matters little where a create follows, which fails then; but
    // a Secret that was just written exists. Its keystores need their passwords in any case.
    let is_absent = observed.verdict.is_ok()
        && observed.rival.is_none()
        && observed.passwords.versions.is_empty()
        && !verified.knows(&Key::of(&observed.pki));
    is_absent.then_some(SecretState::Absent)
}

/// Reads the Secret, and those with the passwords of its keystores.
async fn read(observed: &mut Observed<'_>, context: &Context) -> Result<(), ReconcileError> {
    let pki = &observed.pki;
    let secret = context.read_secret(&secret::key(pki)).await?;
    if let Ok(approved) = &observed.verdict {
        let mut passwords = read_passwords(pki, &approved.outputs, context).await?;
        if let Some(outputs) = other_outputs(approved) {
            passwords.in_force = Some(Box::new(read_passwords(pki, outputs, context).await?));
        }
        observed.passwords = passwords;
    }
    observed.secret = if let Some(secret) = secret {
        let pkis = context.cache.pkis.read();
        let owner = content::owner(&secret, pki, &pkis);
        SecretState::Stored(Box::new(secret), owner)
    } else {
        context.verified_secrets.forget(&Key::of(pki));
        SecretState::Absent
    };
    Ok(())
}

/// Asks whether a Pki whose Secret is gone is being deleted. With `--cascade=foreground` the Secret
/// goes first, and its watch may be ahead of that of the Pkis. The deletion triggers the next
/// reconcile.
async fn is_leaving(pki: &Pki, context: &Context) -> bool {
    let key = Key::of(pki);
    let this = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let found = context.pkis(&key.namespace).list_metadata(&this).await;
    // If the question fails, the write of the Secret fails for the same reason, and reports it.
    found.is_ok_and(|list| {
        let mut items = list.items.iter();
        let this = items.find(|it| it.metadata.uid == pki.metadata.uid);
        this.is_none_or(|it| it.metadata.deletion_timestamp.is_some())
    })
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

/// The outputs that are in force, if their keystores differ from those of the next certificate.
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
