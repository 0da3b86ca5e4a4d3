//! The further files of a Secret, for servers that cannot read `tls.crt` and `tls.key`.

use super::{Content, file};
use crate::api::{Keystore, Outputs};
use crate::policy::Approved;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::formats::{self, KeystoreKind};
use std::fmt;
use zeroize::Zeroizing;

/// Private key and certificates in one file.
pub const COMBINED_PEM: &str = "tls-combined.pem";
/// The private key in DER.
pub const DER_KEY: &str = "key.der";
/// What may be in a Secret besides `tls.crt`, `tls.key` and `ca.crt`.
pub const OPTIONAL: [&str; 6] = [
    COMBINED_PEM,
    DER_KEY,
    KEYSTORES[0].0,
    KEYSTORES[0].1,
    KEYSTORES[1].0,
    KEYSTORES[1].1,
];

/// Keystore and truststore of each kind.
const KEYSTORES: [(&str, &str, KeystoreKind); 2] = [
    ("keystore.p12", "truststore.p12", KeystoreKind::Pkcs12),
    ("keystore.jks", "truststore.jks", KeystoreKind::Jks),
];

/// The name of the entry with the key.
const ALIAS: &str = "certificate";
/// As `keytool` has it.
const SHORTEST_PASSWORD: usize = 6;
/// Plenty; what a password costs grows with its length.
const LONGEST_PASSWORD: usize = 256;

/// The passwords of the keystores, as far as there are to be any.
#[derive(Default)]
pub struct Passwords {
    /// Of the PKCS#12 keystores.
    pub pkcs12: Option<Password>,
    /// Of the JKS keystores.
    pub jks: Option<Password>,
    /// Of the Secrets they come from: another version may hold another password.
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

/// Why a file cannot be made: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no such Secret.
    #[error(
        "there is no Secret {secret} with the password of the keystores: create it, with the password as {key}"
    )]
    NoSecret {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
    },
    /// The Secret has no such entry.
    #[error("Secret {secret} has no {key}: put the password of the keystores there")]
    NoKey {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
    },
    /// The password will not do.
    #[error(
        "{key} in Secret {secret} cannot be the password of a keystore, because it {problem}: write {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} printable ASCII characters{}", .problem.advice()
    )]
    Unsuitable {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
        /// The first thing that is wrong with it.
        problem: PasswordProblem,
    },
    /// The keystore cannot be written.
    #[error(transparent)]
    Keystore(#[from] formats::FormatError),
}

/// Reason why a text cannot be a password. It shows neither the text nor its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordProblem {
    /// The text ends in a line break, as after `echo`.
    LineBreak,
    /// Other tools read a character in another encoding.
    Character,
    /// The text is too short.
    Short,
    /// The text is too long.
    Long,
}

impl PasswordProblem {
    fn of(password: &[u8]) -> Option<Self> {
        match password {
            [.., b'\n' | b'\r'] => Some(Self::LineBreak),
            text if !text.iter().all(|c| (b' '..=b'~').contains(c)) => Some(Self::Character),
            text if text.len() < SHORTEST_PASSWORD => Some(Self::Short),
            text if text.len() > LONGEST_PASSWORD => Some(Self::Long),
            _ => None,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::LineBreak => {
                " without it, as `kubectl create secret generic --from-literal` does"
            }
            _ => "",
        }
    }
}

impl fmt::Display for PasswordProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LineBreak => "ends in a line break",
            Self::Character => "has a character that is not printable ASCII",
            Self::Short => "is too short",
            Self::Long => "is too long",
        })
    }
}

/// A keystore that is wanted and cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// The file. Its truststore is not written either.
    pub file: &'static str,
    /// Whether one from before is in the Secret, which stays there.
    pub is_old: bool,
    /// Why it cannot be written.
    pub error: FormatError,
}

impl Unmade {
    fn of(name: &'static str, error: FormatError, observed: Option<&Secret>) -> Self {
        Self {
            file: name,
            is_old: observed.is_some_and(|secret| !file(secret, name).is_empty()),
            error,
        }
    }
}

impl Passwords {
    /// Reads the password that a keystore's reference leads to. `secret` is the Secret that it names.
    pub fn read(keystore: &Keystore, secret: Option<&Secret>) -> Password {
        let (name, key) = {
            let reference = &keystore.password_secret_ref;
            (reference.name.clone(), reference.key().to_owned())
        };
        let Some(found) = secret else {
            return Err(FormatError::NoSecret { secret: name, key });
        };
        if !found
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(&key))
        {
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

impl Approved {
    /// Whether this further file is to be there.
    pub fn wants(&self, name: &str) -> bool {
        Output::of(name).is_some_and(|output| output.is_in(&self.outputs))
    }
}

/// A field of `spec.outputs`, which adds further files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `combinedPem`.
    CombinedPem,
    /// `derKey`.
    DerKey,
    /// `pkcs12`.
    Pkcs12,
    /// `jks`.
    Jks,
}

impl Output {
    /// The files of all of them.
    pub const FILES: [&'static str; 6] = OPTIONAL;

    /// The one that adds the file of this name.
    pub fn of(file: &str) -> Option<Self> {
        let [(p12, trusted_p12, _), (jks, trusted_jks, _)] = KEYSTORES;
        match file {
            COMBINED_PEM => Some(Self::CombinedPem),
            DER_KEY => Some(Self::DerKey),
            _ if file == p12 || file == trusted_p12 => Some(Self::Pkcs12),
            _ if file == jks || file == trusted_jks => Some(Self::Jks),
            _ => None,
        }
    }

    /// Whether these outputs have it.
    pub fn is_in(self, outputs: &Outputs) -> bool {
        match self {
            Self::CombinedPem => outputs.combined_pem == Some(true),
            Self::DerKey => outputs.der_key == Some(true),
            Self::Pkcs12 => outputs.pkcs12.is_some(),
            Self::Jks => outputs.jks.is_some(),
        }
    }

    /// A value of the field, as people write it.
    pub fn example(self) -> &'static str {
        match self {
            Self::CombinedPem | Self::DerKey => "true",
            Self::Pkcs12 | Self::Jks => {
                "{passwordSecretRef: {name: <a Secret with a password>, key: <its key>}}"
            }
        }
    }

    /// The name of the field.
    pub fn field(self) -> &'static str {
        match self {
            Self::CombinedPem => "combinedPem",
            Self::DerKey => "derKey",
            Self::Pkcs12 => "pkcs12",
            Self::Jks => "jks",
        }
    }
}

/// The further files that are wanted, and the keystores that cannot be made.
pub(super) fn files(
    content: &Content<'_>,
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
    content: &Content<'_>,
    kind: KeystoreKind,
    password: &Password,
) -> Result<[Vec<u8>; 2], FormatError> {
    let password = password.as_ref().map_err(Clone::clone)?;
    let key = formats::keystore(kind, &content.bundle, ALIAS, password)?;
    let trust = formats::truststore(kind, content.trust, password)?;
    Ok([key, trust])
}

/// Whether the further files are in the Secret as they should be. Keystores are salted, so they are opened
/// and not compared. A keystore without a password cannot be opened, and stays as it is: programs
/// that read it go on with the certificate in it as long as that is valid.
pub(super) fn are_in(content: &Content<'_>, observed: &Secret) -> bool {
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
    content: &'a Content<'_>,
) -> impl Iterator<Item = (&'static str, Zeroizing<Vec<u8>>)> + 'a {
    let bundle = &content.bundle;
    let combined = content.approved.outputs.combined_pem == Some(true);
    let der = content.approved.outputs.der_key == Some(true);
    let combined = combined.then(|| (COMBINED_PEM, formats::combined_pem(bundle)));
    let der = der.then(|| formats::key_der(bundle)).flatten();
    combined.into_iter().chain(der.map(|der| (DER_KEY, der)))
}
