//! What people read when a [`Pki`](crate::api::Pki) is refused.

use super::names::display_duration;
use super::reserved::Reserved;
use crate::api::{KeyAlgorithm, KeyEncoding};
use crate::util::text::{self, printable};
use jiff::SignedDuration;
use std::net::IpAddr;
use words::{Shown, after, size_remedy, unpermitted_remedy};

pub use allowed::AllowedNames;
pub use field::Field;
pub use hint::Hint;
pub use owner::NameOwner;
pub use reason::{is_reason, reason_of};
pub use words::summary;

mod allowed;
mod field;
mod hint;
mod look_alike;
mod owner;
mod reason;
mod shape;
mod unpermitted;
mod words;

/// One broken rule. Its [`Display`](std::fmt::Display) is the denial, the condition's message and
/// the Event's note; its variant gives the [reason](Self::reason); its [field](Self::field) says
/// where to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The service name is not among the names that policies of this namespace allow.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: {allowed}{}",
        printable(name),
        printable(pki),
        hint
    )]
    ServiceName {
        /// `spec.serviceName`.
        name: String,
        /// The name of the Pki.
        pki: String,
        /// The names that would be allowed.
        allowed: AllowedNames,
        /// What was probably meant.
        hint: Box<Hint>,
    },

    /// No policy is for this namespace.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: []; no PkiPolicy is for namespace {}: {}",
        printable(name),
        printable(pki),
        printable(namespace),
        if *is_elsewhere {
            "one allows that name in another namespace; is this the right one?"
        } else {
            "ask the platform team for one that allows it"
        }
    )]
    NoPolicy {
        /// `spec.serviceName`.
        name: String,
        /// The name of the Pki.
        pki: String,
        /// Its namespace.
        namespace: String,
        /// Whether a policy allows the name in another namespace.
        is_elsewhere: bool,
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

    /// The service is that of the API server itself.
    #[error(
        "{:?} in namespace {namespace} is the service of the API server, which no policy can give away: write the name of the service in front of your pods",
        Shown(name)
    )]
    ServiceReserved {
        /// `spec.serviceName`.
        name: String,
        /// The namespace.
        namespace: String,
    },

    /// The common name is none of the certificate's names, or too long.
    #[error(
        "{:?} cannot be the common name: write {} or one of the certificate's DNS names, with at most 64 characters, or leave commonName out{}",
        Shown(name),
        printable(service),
        after(shape::common_name(name))
    )]
    CommonName {
        /// `spec.commonName`.
        name: String,
        /// `spec.serviceName`, which would do.
        service: String,
    },

    /// A further DNS name is no host name.
    #[error(
        "{:?} is not a DNS name: write labels of letters, digits and '-' with dots between, for example api.example.com{}",
        Shown(name),
        after(shape::dns_name(name))
    )]
    DnsNameShape {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// As written.
        name: String,
    },

    /// A further DNS name is one that other services of the cluster are reached by.
    #[error(
        "{:?} is a name inside the cluster, which belongs to {owner}; the certificate is for {} by itself",
        Shown(name),
        printable(own)
    )]
    DnsNameInternal {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// As written.
        name: String,
        /// The owner of the name.
        owner: NameOwner,
        /// The name inside the cluster that this Pki does have.
        own: String,
    },

    /// A name below the Pki's own Service is not that of one pod.
    #[error(
        "{:?} names no pod of the Service: write one label, which does not begin with xn--, before {}, or '*' for all pods: *.{}",
        Shown(name),
        printable(own),
        printable(own)
    )]
    PodNameShape {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// As written.
        name: String,
        /// The name of the Service inside the cluster.
        own: String,
    },

    /// The policy permits no names of pods.
    #[error(
        "{:?} is the name of a pod of the Service, and PkiPolicy {} has podNames: false; remove it, or ask the platform team to permit it",
        Shown(name),
        printable(policy)
    )]
    PodNames {
        /// Its place in `spec.dnsNames`.
        index: usize,
        /// The name, folded.
        name: String,
        /// The policy that comes nearest.
        policy: String,
    },

    /// A list is longer than what a certificate takes.
    #[error("{count} are too many: write at most {most}")]
    Count {
        /// The list.
        field: Field,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },

    /// An IP address is none.
    #[error(
        "{:?} is not an IP address: write one such as 10.1.2.3 or 2001:db8::1{}",
        Shown(value),
        after(shape::ip_address(value))
    )]
    IpAddressShape {
        /// Its place in `spec.ipAddresses`.
        index: usize,
        /// As written.
        value: String,
    },

    /// An IPv4 address in the clothes of an IPv6 one.
    #[error("{:?} is an IPv4 address written as IPv6: write {v4}", Shown(value))]
    IpAddressMapped {
        /// Its place in `spec.ipAddresses`.
        index: usize,
        /// As written.
        value: String,
        /// What it stands for.
        v4: IpAddr,
    },

    /// A name, an address or a URI that belongs to nobody, whatever policies permit.
    #[error(
        "{:?} {why}, which no policy can give away: remove it; the certificate is for {} by itself",
        Shown(value),
        printable(own)
    )]
    Reserved {
        /// Where it stands.
        field: Field,
        /// As written.
        value: String,
        /// Why it belongs to nobody.
        why: Reserved,
        /// The name inside the cluster that this Pki does have.
        own: String,
    },

    /// A URI is none, or one that two readers could take for two.
    #[error(
        "{:?} is not a URI for a certificate: write scheme, host and path without query, escapes or empty segments, for example spiffe://example.com/ns/team-a/app1{}",
        Shown(value),
        after(shape::uri(value))
    )]
    UriShape {
        /// Its place in `spec.uris`.
        index: usize,
        /// As written.
        value: String,
    },

    /// What the certificate is to hold is not permitted by the policy.
    #[error(
        "{:?} is not permitted: PkiPolicy {} permits {}{}; {}",
        Shown(value),
        printable(policy),
        permitted.or_none(),
        after(why.as_ref()),
        unpermitted_remedy(*field)
    )]
    NotPermitted {
        /// Where it stands.
        field: Field,
        /// What was asked for, folded, also by default.
        value: String,
        /// The policy that comes nearest.
        policy: String,
        /// What it permits.
        permitted: Box<AllowedNames>,
        /// Why something permitted that looks alike is not the same.
        why: Option<String>,
    },

    /// The Secret's name is no name.
    #[error(
        "{:?} is not the name of a Secret: write lower-case letters, digits, '-' and '.', for example app1-pki",
        Shown(name)
    )]
    SecretNameShape {
        /// Where it stands.
        field: Field,
        /// As written.
        name: String,
    },

    /// The Secret is one of the operator's own.
    #[error(
        "Secret {} is the operator's own: choose another name",
        printable(name)
    )]
    SecretReserved {
        /// Where it stands.
        field: Field,
        /// The Secret.
        name: String,
    },

    /// The password of a keystore is looked for in the Secret that the keystore is written to.
    #[error(
        "Secret {} is the one that the certificate is written to: keep the password in another",
        printable(name)
    )]
    PasswordInOwnSecret {
        /// Where it stands.
        field: Field,
        /// The Secret.
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

    /// A rule in CEL does not hold.
    #[error(
        "{}{} (PkiPolicy {})",
        text::line(message),
        error.as_ref().map(|error| format!("; the rule fails: {}", printable(error))).unwrap_or_default(),
        printable(policy)
    )]
    Validation {
        /// What the platform team has to say.
        message: String,
        /// What went wrong, if it could not be told whether the rule holds.
        error: Option<&'static str>,
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

    /// The renewal time is no percentage, or not within the lifetime.
    #[error(
        "{value} is not a percentage of the duration: write 1 to 90, for example 33, or leave renewBeforePercentage out"
    )]
    RenewBeforePercentage {
        /// `spec.renewBeforePercentage`.
        value: i32,
    },

    /// The renewal time is given twice.
    #[error("renewBefore says when to renew already: leave one of the two out")]
    RenewBeforeTwice,

    /// The key's size is not offered.
    #[error("{size} is not a size of an {algorithm} key here: {}", size_remedy(*algorithm, *size))]
    KeySize {
        /// `spec.privateKey.algorithm`.
        algorithm: KeyAlgorithm,
        /// `spec.privateKey.size`.
        size: i32,
    },

    /// The encoding is that of another kind of key.
    #[error(
        "{encoding} is not an encoding of {algorithm} keys: write PKCS8, or leave encoding out"
    )]
    KeyEncoding {
        /// `spec.privateKey.algorithm`.
        algorithm: KeyAlgorithm,
        /// `spec.privateKey.encoding`.
        encoding: KeyEncoding,
    },

    /// A key of a label or annotation is malformed.
    #[error(
        "{:?} is not a key: write at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it if you like, for example example.com/team",
        Shown(key)
    )]
    TemplateKeyShape {
        /// Labels or annotations.
        field: Field,
        /// As written.
        key: String,
    },

    /// A key of a label or annotation steers Kubernetes or this operator.
    #[error(
        "{:?} is reserved, as all of kubernetes.io, k8s.io and box.com are: choose another key",
        Shown(key)
    )]
    TemplateKeyReserved {
        /// Labels or annotations.
        field: Field,
        /// As written.
        key: String,
    },

    /// A label's value is malformed.
    #[error(
        "{:?} cannot be the value of {:?}: write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        Shown(value),
        Shown(key)
    )]
    LabelValue {
        /// The label.
        key: String,
        /// As written.
        value: String,
    },
}

impl Violation {
    /// Where to mend it.
    pub fn field(&self) -> Field {
        match self {
            Self::ServiceName { .. }
            | Self::NoPolicy { .. }
            | Self::ServiceNameShape { .. }
            | Self::ServiceReserved { .. } => Field::of("spec.serviceName"),
            Self::CommonName { .. } => Field::of("spec.commonName"),
            Self::DnsNameShape { index, .. }
            | Self::DnsNameInternal { index, .. }
            | Self::PodNameShape { index, .. }
            | Self::PodNames { index, .. } => Field::at("spec.dnsNames", *index),
            Self::IpAddressShape { index, .. } | Self::IpAddressMapped { index, .. } => {
                Field::at("spec.ipAddresses", *index)
            }
            Self::UriShape { index, .. } => Field::at("spec.uris", *index),
            Self::Duration { .. } | Self::DurationTooLong { .. } => Field::of("spec.duration"),
            Self::RenewBefore { .. } => Field::of("spec.renewBefore"),
            Self::RenewBeforePercentage { .. } | Self::RenewBeforeTwice => {
                Field::of("spec.renewBeforePercentage")
            }
            Self::KeySize { .. } => Field::of("spec.privateKey.size"),
            Self::KeyEncoding { .. } => Field::of("spec.privateKey.encoding"),
            Self::LabelValue { .. } => Field::of("spec.secretTemplate.labels"),
            Self::Validation { .. } => Field::of("spec"),
            Self::Reserved { field, .. }
            | Self::Count { field, .. }
            | Self::NotPermitted { field, .. }
            | Self::SecretNameShape { field, .. }
            | Self::SecretReserved { field, .. }
            | Self::PasswordInOwnSecret { field, .. }
            | Self::TemplateKeyShape { field, .. }
            | Self::TemplateKeyReserved { field, .. } => *field,
        }
    }

    /// The policy that does not permit it, where one comes near.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::ServiceName { hint, .. } => Some(hint.policy()),
            Self::NotPermitted { policy, .. }
            | Self::PodNames { policy, .. }
            | Self::DurationTooLong { policy, .. }
            | Self::Validation { policy, .. } => Some(policy),
            _ => None,
        }
    }

    /// The reason, in CamelCase, of Events and conditions.
    pub fn reason(&self) -> &'static str {
        reason_of(self.field().path())
    }

    /// Whether the value is well formed and merely not on offer, which the API tells apart from a
    /// malformed one.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::ServiceName { .. }
                | Self::NoPolicy { .. }
                | Self::KeySize { .. }
                | Self::KeyEncoding { .. }
        )
    }
}
