//! What people read when a [`Pki`](crate::api::Pki) is refused.

use super::names::display_duration;
use super::text::printable;
use jiff::SignedDuration;
use std::fmt;

/// One broken rule. Its [`Display`](fmt::Display) is the denial, the condition's message and the Event's note; its
/// variant gives the [reason](Self::reason); its [field](Self::field) says where to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The service name is not among the names that policies of this namespace allow.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: {allowed}{}",
        printable(name), printable(pki), hint(suggestion.as_deref())
    )]
    ServiceName {
        /// `spec.serviceName`.
        name: String,
        /// The name of the Pki.
        pki: String,
        /// The names that would be allowed.
        allowed: AllowedNames,
        /// The allowed name that was probably meant.
        suggestion: Option<String>,
    },

    /// No policy is for this namespace.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: []; no PkiPolicy is for namespace {}: ask the platform team for one that allows it",
        printable(name),
        printable(pki),
        printable(namespace)
    )]
    NoPolicy {
        /// `spec.serviceName`.
        name: String,
        /// The name of the Pki.
        pki: String,
        /// Its namespace.
        namespace: String,
    },

    /// The service name is no DNS label.
    #[error(
        "{:?} is not a service name: write at most 63 lower-case letters, digits and '-', for example app1",
        Shown(name)
    )]
    ServiceNameShape {
        /// `spec.serviceName`.
        name: String,
    },

    /// The common name is none of the certificate's names, or too long.
    #[error(
        "{:?} cannot be the common name: write {} or one of the certificate's DNS names, with at most 64 characters, or leave commonName out",
        Shown(name),
        printable(service)
    )]
    CommonName {
        /// `spec.commonName`.
        name: String,
        /// `spec.serviceName`, which would do.
        service: String,
    },

    /// A further DNS name is no host name.
    #[error(
        "{:?} is not a DNS name: write labels of letters, digits and '-' with dots between, for example api.example.com",
        Shown(name)
    )]
    DnsNameShape {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// As written.
        name: String,
    },

    /// A further DNS name is one that other services of the cluster are reached by.
    #[error(
        "{:?} is a name inside the cluster, which belongs to the service it leads to: remove it; the certificate is for {} by itself",
        Shown(name),
        printable(own)
    )]
    DnsNameInternal {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// As written.
        name: String,
        /// The name inside the cluster that this Pki does have.
        own: String,
    },

    /// More further DNS names than a certificate takes.
    #[error("{count} names are too many: write at most 100")]
    DnsNameCount {
        /// How many `spec.dnsNames` there are.
        count: usize,
    },

    /// A further DNS name is not permitted by the policy.
    #[error(
        "{:?} is not permitted: PkiPolicy {} permits {permitted}; remove it, or ask the platform team to permit it",
        Shown(name),
        printable(policy)
    )]
    DnsName {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// Folded.
        name: String,
        /// The policy that comes nearest.
        policy: String,
        /// What it permits.
        permitted: AllowedNames,
    },

    /// The Secret's name is no name.
    #[error(
        "{:?} is not the name of a Secret: write lower-case letters, digits, '-' and '.', for example app1-pki",
        Shown(name)
    )]
    SecretNameShape {
        /// `spec.secretName`.
        name: String,
    },

    /// The Secret is one of the operator's own.
    #[error(
        "Secret {} is the operator's own: choose another name",
        printable(name)
    )]
    SecretReserved {
        /// `spec.secretName`.
        name: String,
    },

    /// The duration cannot be read, or is out of bounds.
    #[error(
        "{:?} is not a lifetime: write at least 1h and at most 876000h in hours, minutes and seconds, for example 2160h",
        Shown(value)
    )]
    Duration {
        /// `spec.duration`.
        value: String,
    },

    /// The duration is longer than the policy permits.
    #[error(
        "{} is too long: PkiPolicy {} permits at most {}; write duration: {}",
        display_duration(*wanted), printable(policy), display_duration(*max), display_duration(*max)
    )]
    DurationTooLong {
        /// What was asked for, also by default.
        wanted: SignedDuration,
        /// What is permitted.
        max: SignedDuration,
        /// The policy that comes nearest.
        policy: String,
    },

    /// The renewal time cannot be read, or is not within the lifetime.
    #[error(
        "{:?} is not a time before expiry: write more than 0s and at most {}, nine tenths of the duration, for example {}, or leave renewBefore out",
        Shown(value), display_duration(*duration * 9 / 10), display_duration(*duration / 3)
    )]
    RenewBefore {
        /// `spec.renewBefore`.
        value: String,
        /// The certificate's lifetime.
        duration: SignedDuration,
    },

    /// The key's size is not offered.
    #[error("{size} is not a size of an ECDSA key here: write 256 (curve P-256)")]
    KeySize {
        /// `spec.privateKey.size`.
        size: i32,
    },
}

/// A field of a Pki, as its path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    path: &'static str,
    index: Option<usize>,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

impl Violation {
    /// A service name that `allowed` lacks.
    pub(super) fn service_name(
        name: &str,
        pki: &str,
        allowed: impl Iterator<Item = String>,
    ) -> Self {
        let allowed = AllowedNames::nearest(allowed.collect(), name);
        Self::ServiceName {
            name: name.into(),
            pki: pki.into(),
            suggestion: allowed.suggestion(name),
            allowed,
        }
    }

    /// A further DNS name that is not among `permitted`.
    pub(super) fn dns_name(
        index: usize,
        name: &str,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        Self::DnsName {
            index,
            name: name.into(),
            policy: policy.into(),
            permitted: AllowedNames::nearest(permitted.collect(), name),
        }
    }

    /// Where to mend it.
    pub fn field(&self) -> Field {
        let (path, index) = match self {
            Self::ServiceName { .. } | Self::NoPolicy { .. } | Self::ServiceNameShape { .. } => {
                ("spec.serviceName", None)
            }
            Self::CommonName { .. } => ("spec.commonName", None),
            Self::DnsNameCount { .. } => ("spec.dnsNames", None),
            Self::DnsNameShape { index, .. }
            | Self::DnsNameInternal { index, .. }
            | Self::DnsName { index, .. } => ("spec.dnsNames", Some(*index)),
            Self::SecretNameShape { .. } | Self::SecretReserved { .. } => ("spec.secretName", None),
            Self::Duration { .. } | Self::DurationTooLong { .. } => ("spec.duration", None),
            Self::RenewBefore { .. } => ("spec.renewBefore", None),
            Self::KeySize { .. } => ("spec.privateKey.size", None),
        };
        Field { path, index }
    }

    /// The reason, in CamelCase, of Events and conditions.
    pub fn reason(&self) -> &'static str {
        match self.field().path {
            "spec.serviceName" => "PkiServiceNameError",
            "spec.commonName" => "PkiCommonNameError",
            "spec.dnsNames" => "PkiDnsNameError",
            "spec.secretName" => "PkiSecretNameError",
            "spec.duration" => "PkiDurationError",
            "spec.renewBefore" => "PkiRenewBeforeError",
            _ => "PkiPrivateKeyError",
        }
    }

    /// Whether the value is well formed and merely not on offer, which the API tells apart from a malformed one.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::ServiceName { .. } | Self::NoPolicy { .. } | Self::KeySize { .. }
        )
    }
}

/// One violation as it is, several each with its field: what conditions and Events say.
pub fn summary(violations: &[Violation]) -> String {
    match violations {
        [only] => only.to_string(),
        several => {
            let lines: Vec<_> = several
                .iter()
                .map(|v| format!("{}: {v}", v.field()))
                .collect();
            lines.join("; ")
        }
    }
}

/// Allowed names, the nearest first where they are too many to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNames {
    names: Vec<String>,
    more: usize,
}

impl AllowedNames {
    const LISTED: usize = 10;

    fn nearest(mut names: Vec<String>, to: &str) -> Self {
        names.sort_unstable();
        names.dedup();
        let more = names.len().saturating_sub(Self::LISTED);
        if more > 0 {
            names.sort_by_cached_key(|name| strsim::osa_distance(name, to));
            names.truncate(Self::LISTED);
        }
        Self { names, more }
    }

    /// The name that was probably meant: one to three edits away, by length, so that short names are not guessed.
    fn suggestion(&self, name: &str) -> Option<String> {
        let near = (name.len() / 3).clamp(1, 3);
        self.names
            .iter()
            .filter(|known| !known.contains('*'))
            .map(|known| (strsim::osa_distance(known, name), known))
            .filter(|(distance, _)| *distance <= near)
            .min()
            .map(|(_, known)| known.clone())
    }
}

impl fmt::Display for AllowedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.names.iter().map(|name| printable(name)).collect();
        write!(f, "[{}]", shown.join(" "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean \"{}\"?", printable(name)),
        None => "; use one of these names, or ask the platform team to allow yours".into(),
    }
}

/// A value in quotation marks, printable.
struct Shown<'a>(&'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable(self.0))
    }
}
