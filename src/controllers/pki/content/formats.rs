//! The further files of a Secret, for servers that cannot read `tls.crt` and `tls.key`.

use super::{SecretContent, file};
use crate::api::Keystore;
use crate::model::keystore::{FormatError, PasswordProblem, Unmade};
use crate::model::output::{COMBINED_PEM, DER_KEY, KEYSTORES};
use crate::policy::Approved;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::formats::{self, KeystoreKind};
use std::fmt;
use zeroize::Zeroizing;

/// The name of the entry with the key.
const ALIAS: &str = "certificate";
/// The passwords of the keystores, as far as there are to be any.
#[derive(Default)]
pub struct Passwords {
    /// The password of the PKCS#12 keystores.
    pub pkcs12: Option<Password>,
    /// The password of the JKS keystores.
    pub jks: Option<Password>,
    /// The versions of their Secrets. Another version may hold another password.
    pub versions: Vec<String>,
    /// Those for the files that are in force, where these are others.
    pub in_force: Option<Box<Passwords>>,
}

/// A password, or why there is none.
pub type Password = Result<Zeroizing<String>, FormatError>;

/// Hides the passwords.
impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(..)")
    }
}

impl Passwords {
    /// Reads the password that a keystore's reference leads to. `secret` is the Secret that it
    /// names.
    pub fn read(keystore: &Keystore, secret: Option<&Secret>) -> Password {
        let reference = &keystore.password_secret_ref;
        let (name, key) = (reference.name.clone(), reference.key().to_owned());
        let Some(found) = secret else {
            return Err(FormatError::NoSecret { secret: name, key });
        };
        let mut data = found.data.iter();
        if !data.any(|data| data.contains_key(&key)) {
            return Err(FormatError::NoKey { secret: name, key });
        }
        let password = file(found, &key);
        match (PasswordProblem::of(password), str::from_utf8(password)) {
            (None, Ok(text)) => Ok(Zeroizing::new(text.to_owned())),
            (problem, _) => Err(FormatError::Unsuitable {
                secret: name,
                key,
                problem: problem.unwrap_or(PasswordProblem::Character),
            }),
        }
    }

    /// Those for what is in force, or for the next certificate.
    pub fn of(&self, which: &Approved, next: &Approved) -> &Self {
        match &self.in_force {
            Some(in_force) if which.outputs != next.outputs => in_force,
            _ => self,
        }
    }

    /// The keystores in this Secret whose password is missing.
    pub fn unmade(&self, secret: &Secret) -> Vec<Unmade> {
        let missing = |&(file, _, kind): &(&'static str, &str, KeystoreKind)| {
            let error = self.for_kind(kind)?.as_ref().err()?.clone();
            Some(Unmade::of(file, error, Some(secret)))
        };
        KEYSTORES.iter().filter_map(missing).collect()
    }

    fn for_kind(&self, kind: KeystoreKind) -> Option<&Password> {
        match kind {
            KeystoreKind::Jks => self.jks.as_ref(),
            KeystoreKind::Pkcs12 => self.pkcs12.as_ref(),
        }
    }
}

/// The further files that are wanted, and the keystores that cannot be made.
pub(super) fn files(
    content: &SecretContent<'_>,
    observed: Option<&Secret>,
) -> (Vec<(String, ByteString)>, Vec<Unmade>) {
    let (mut files, mut unmade) = (Vec::new(), Vec::new());
    for (name, made) in plain(content) {
        files.push((name.to_owned(), ByteString(made.to_vec())));
    }
    for (file, truststore, kind) in KEYSTORES {
        let Some(password) = content.passwords.for_kind(kind) else {
            continue;
        };
        match stores(content, kind, password) {
            Ok([key, trust]) => {
                files.push((file.to_owned(), ByteString(key)));
                files.push((truststore.to_owned(), ByteString(trust)));
            }
            Err(error) => unmade.push(Unmade::of(file, error, observed)),
        }
    }
    (files, unmade)
}

/// Keystore and truststore of one kind.
fn stores(
    content: &SecretContent<'_>,
    kind: KeystoreKind,
    password: &Password,
) -> Result<[Vec<u8>; 2], FormatError> {
    let password = password.as_ref().map_err(Clone::clone)?;
    let key = formats::keystore(kind, &content.bundle, ALIAS, password)?;
    let trust = formats::truststore(kind, content.trust, password)?;
    Ok([key, trust])
}

/// Whether the further files are in the Secret as they should be. Keystores are salted, so they are
/// opened and not compared. A keystore without a password cannot be opened, and stays as it is:
/// programs that read it go on with the certificate in it as long as that is valid.
pub(super) fn are_in(content: &SecretContent<'_>, observed: &Secret) -> bool {
    let found = |name: &str| file(observed, name);
    plain(content).all(|(name, made)| found(name) == made.as_slice())
        && KEYSTORES.iter().all(|(keystore, truststore, kind)| {
            let Some(Ok(password)) = content.passwords.for_kind(*kind) else {
                return true;
            };
            formats::keystore_holds(*kind, found(keystore), &content.bundle, password)
                && formats::truststore_holds(*kind, found(truststore), content.trust, password)
        })
}

/// Those that follow from the bundle alone.
fn plain<'a>(
    content: &'a SecretContent<'_>,
) -> impl Iterator<Item = (&'static str, Zeroizing<Vec<u8>>)> + 'a {
    let bundle = &content.bundle;
    let combined = content.approved.outputs.combined_pem == Some(true);
    let der = content.approved.outputs.der_key == Some(true);
    let combined = combined.then(|| (COMBINED_PEM, formats::combined_pem(bundle)));
    let der = der.then(|| formats::key_der(bundle)).flatten();
    combined.into_iter().chain(der.map(|der| (DER_KEY, der)))
}
