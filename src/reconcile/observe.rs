//! The facts on which a look at a Pki decides.

use super::plan::Observed;
use super::secret::formats::Passwords;
use super::{Context, Error, secret};
use crate::api::Pki;
use crate::ca::Ca;
use crate::claims;
use crate::index::Key;
use crate::locks;
use crate::policy::Approved;
use kube::ResourceExt;

/// Gathers the facts. The Secret is read only where the plan can come to need it.
pub(super) async fn observe<'a>(
    pki: &'a Pki,
    ca: &'a Ca,
    context: &'a Context,
) -> Result<Observed<'a>, Error> {
    let own = Key::of(pki);
    let key = Key::new(own.namespace.clone(), pki.secret_name());
    let verdict = context.cache.rules().evaluate(pki);
    // Of a refused Pki the certificate that is in use matters while the CA is being replaced, or if it is to be kept.
    let matters = pki.status.as_ref().is_some_and(|status| {
        let is_unpublished = !ca.trust.pem().is_empty()
            && status.trust_fingerprint.as_deref() != Some(ca.trust.fingerprint());
        status.serial_number.is_some() && (is_unpublished || secret::is_kept(pki))
    });
    let secret = if verdict.is_ok() || matters {
        context.read_secret(&key).await?
    } else {
        None
    };
    let (mut passwords, mut versions) = (Passwords::default(), Vec::new());
    if let Ok(Approved { outputs, .. }) = &verdict {
        for (keystore, password) in [
            (&outputs.pkcs12, &mut passwords.pkcs12),
            (&outputs.jks, &mut passwords.jks),
        ] {
            let Some(keystore) = keystore else { continue };
            let name = &keystore.password_secret_ref.name;
            let key = Key::new(own.namespace.clone(), name);
            let secret = context.read_secret(&key).await?;
            let version = secret.as_ref().and_then(ResourceExt::resource_version);
            versions.push(version.unwrap_or_default());
            *password = Some(Passwords::read(keystore, secret.as_ref()));
        }
    }
    passwords.versions = versions;
    let claims = locks::read(&context.cache.claims);
    Ok(Observed {
        pki,
        verdict,
        rival: claims::winner(&claims, &key)
            .filter(|winner| **winner != own)
            .cloned(),
        secret: secret.map(|secret| {
            let owner = secret::owner(&secret, pki, &claims);
            (secret, owner)
        }),
        passwords,
        ca,
    })
}
