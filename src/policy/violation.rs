//! Broken rules, and the messages of a refused [`Pki`](crate::api::Pki).

use super::names::display_duration;
use super::reserved::Reserved;
use crate::api::{KeyAlgorithm, KeyEncoding};
use crate::util::text::{self, printable};
use jiff::SignedDuration;
use std::net::IpAddr;
use words::{Shown, after, size_remedy};

pub(super) use allowed::AllowedNames;
pub use field::Field;
pub(super) use hint::Hint;
pub(super) use owner::NameOwner;
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

/// A broken rule, and its field. [`Display`](std::fmt::Display) is the message people get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Violation {
    field: Field,
    rule: Box<BrokenRule>,
}

/// A rule that a Pki breaks, with the values that its message shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BrokenRule {
    /// The service name is not among the names that policies of this namespace allow.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: {allowed}{}",
        printable(name),
        printable(pki),
        hint
    )]
    ServiceName {
        name: String,
        pki: String,
        allowed: AllowedNames,
        hint: Box<Hint>,
    },
    /// No policy is for this namespace.
    #[error(
        "ServiceName: {} in pki: {} is not found in allowedNames: []; no PkiPolicy applies to namespace {}: {}",
        printable(name),
        printable(pki),
        printable(namespace),
        if *is_elsewhere {
            "one allows that name in another namespace; check the namespace"
        } else {
            "ask the platform team for one that allows it"
        }
    )]
    NoPolicy {
        name: String,
        pki: String,
        namespace: String,
        is_elsewhere: bool,
    },
    /// The service name is no DNS label.
    #[error(
        "{:?} is not a service name: write at most 63 lower-case letters, digits and '-', for example app1",
        Shown(_0)
    )]
    ServiceNameShape(String),
    /// The service is that of the API server itself.
    #[error(
        "{:?} in namespace {namespace} is the service of the API server, which no policy can permit: write the name of the service in front of your pods",
        Shown(name)
    )]
    ServiceReserved { name: String, namespace: String },
    /// The common name is none of the certificate's names, or too long.
    #[error(
        "{:?} cannot be the common name: write {} or one of the certificate's DNS names, with at most 64 characters, or leave commonName out{}",
        Shown(name),
        printable(service),
        after(shape::common_name(name))
    )]
    CommonName { name: String, service: String },
    /// A further DNS name is no host name.
    #[error(
        "{:?} is not a DNS name: write labels of letters, digits and '-' separated by dots, for example api.example.com{}",
        Shown(_0),
        after(shape::dns_name(_0))
    )]
    DnsNameShape(String),
    /// A further DNS name belongs to another service of the cluster.
    #[error(
        "{:?} is a name inside the cluster, which belongs to {owner}; the certificate always includes {}",
        Shown(name),
        printable(own)
    )]
    DnsNameInternal {
        name: String,
        owner: NameOwner,
        own: String,
    },
    /// A name below the Pki's own Service is not that of one pod.
    #[error(
        "{:?} is not the name of a pod of the Service: write one label that does not begin with xn-- before {}, or '*' for all pods: *.{}",
        Shown(name),
        printable(own),
        printable(own)
    )]
    PodNameShape { name: String, own: String },
    /// The policy permits no names of pods.
    #[error(
        "{:?} is the name of a pod of the Service, and PkiPolicy {} has podNames: false; remove it, or ask the platform team to permit it",
        Shown(name),
        printable(policy)
    )]
    PodNames { name: String, policy: String },
    /// A list has more elements than a certificate takes.
    #[error("{count} are too many: write at most {most}")]
    Count { count: usize, most: usize },
    /// An IP address is malformed.
    #[error(
        "{:?} is not an IP address: write one such as 10.1.2.3 or 2001:db8::1{}",
        Shown(_0),
        after(shape::ip_address(_0))
    )]
    IpAddressShape(String),
    /// An IPv4 address is written as an IPv6 one.
    #[error("{:?} is an IPv4 address written as IPv6: write {v4}", Shown(value))]
    IpAddressMapped { value: String, v4: IpAddr },
    /// A name, an address or a URI that belongs to nobody, whatever policies permit.
    #[error(
        "{:?} {why}, which no policy can permit: remove it; the certificate always includes {}",
        Shown(value),
        printable(own)
    )]
    Reserved {
        value: String,
        why: Reserved,
        own: String,
    },
    /// A URI is malformed, or has two readings.
    #[error(
        "{:?} is not a URI for a certificate: write scheme, host and path without query, escapes or empty segments, for example spiffe://example.com/ns/team-a/app1{}",
        Shown(_0),
        after(shape::uri(_0))
    )]
    UriShape(String),
    /// A value of the certificate is not permitted by the policy.
    #[error(
        "{:?} is not permitted: PkiPolicy {} permits {}{}; {}",
        Shown(value),
        printable(policy),
        permitted.or_none(),
        after(why.as_ref()),
        remedy
    )]
    NotPermitted {
        value: String,
        policy: String,
        permitted: Box<AllowedNames>,
        why: Option<String>,
        remedy: &'static str,
    },
    /// The name of the Secret is malformed.
    #[error(
        "{:?} is not the name of a Secret: write lower-case letters, digits, '-' and '.', for example app1-pki",
        Shown(_0)
    )]
    SecretNameShape(String),
    /// The Secret is one of the operator's own.
    #[error(
        "Secret {} belongs to the operator: choose another name",
        printable(_0)
    )]
    SecretReserved(String),
    /// The password of a keystore would come from the Secret that holds the keystore.
    #[error(
        "Secret {} holds the certificate: keep the password in another Secret",
        printable(_0)
    )]
    PasswordInOwnSecret(String),
    /// The duration cannot be read, or is out of bounds.
    #[error(
        "{:?} is not a lifetime: write at least 1h and at most 876000h in hours, minutes and seconds, for example 2160h",
        Shown(_0)
    )]
    Duration(String),
    /// The duration is longer than the policy permits.
    #[error(
        "{} is too long: PkiPolicy {} permits at most {}; write duration: {}",
        display_duration(*duration), printable(policy), display_duration(*max), display_duration(*max)
    )]
    DurationTooLong {
        duration: SignedDuration,
        max: SignedDuration,
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
        message: String,
        error: Option<&'static str>,
        policy: String,
    },
    /// The renewal time cannot be read, or is not within the lifetime.
    #[error(
        "{:?} is not a time before expiry: write more than 0s and at most {}, nine tenths of the duration, for example {}, or leave renewBefore out",
        Shown(value), display_duration(*duration * 9 / 10), display_duration(*duration / 3)
    )]
    RenewBefore {
        value: String,
        duration: SignedDuration,
    },
    /// The percentage of the renewal time is out of bounds.
    #[error(
        "{0} is not a percentage of the duration: write 1 to 90, for example 33, or leave renewBeforePercentage out"
    )]
    RenewBeforePercentage(i32),
    /// The renewal time is given twice.
    #[error("renewBefore and renewBeforePercentage both set the renewal time: remove one of them")]
    RenewBeforeTwice,
    /// The key's size is not offered.
    #[error("{size} is not a supported size of an {algorithm} key: {}", size_remedy(*algorithm, *size))]
    KeySize { algorithm: KeyAlgorithm, size: i32 },
    /// The encoding is that of another kind of key.
    #[error(
        "{encoding} is not an encoding of {algorithm} keys: write PKCS8, or leave encoding out"
    )]
    KeyEncoding {
        algorithm: KeyAlgorithm,
        encoding: KeyEncoding,
    },
    /// This installation writes no Secrets.
    #[error(
        "this installation writes no Secrets: write delivery: Pod, and mount the certificate as a podCertificate of the signer box.com/pki"
    )]
    NoSecrets,
    /// The field is about a Secret that is not written.
    #[error("has no effect with delivery: Pod, which writes no Secret: remove it")]
    NoSecretWithPods,
    /// The key is chosen in the pod.
    #[error(
        "has no effect with delivery: Pod, where the kubelet makes the key: remove it, and write keyType in the volume of the pod"
    )]
    KeyOfPods,
    /// A key of a label or annotation is malformed.
    #[error(
        "{:?} is not a key: write at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it if you like, for example example.com/team",
        Shown(_0)
    )]
    TemplateKeyShape(String),
    /// A key of a label or annotation controls Kubernetes or this operator.
    #[error(
        "{:?} is reserved, like all keys of kubernetes.io, k8s.io and box.com: choose another key",
        Shown(_0)
    )]
    TemplateKeyReserved(String),
    /// A label's value is malformed.
    #[error(
        "{:?} cannot be the value of {:?}: write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        Shown(value),
        Shown(key)
    )]
    LabelValue { key: String, value: String },
}

impl Violation {
    pub(super) fn new(field: Field, rule: BrokenRule) -> Self {
        let rule = Box::new(rule);
        Self { field, rule }
    }

    /// A service name that is no DNS label.
    pub(crate) fn service_name(name: &str) -> Self {
        let rule = BrokenRule::ServiceNameShape(name.to_owned());
        Self::new(Field::of("spec.serviceName"), rule)
    }

    /// The field that breaks the rule.
    pub fn field(&self) -> Field {
        self.field
    }

    /// The policy that does not permit it, where one comes near.
    pub fn policy(&self) -> Option<&str> {
        match &*self.rule {
            BrokenRule::ServiceName { hint, .. } => Some(hint.policy()),
            BrokenRule::NotPermitted { policy, .. }
            | BrokenRule::PodNames { policy, .. }
            | BrokenRule::DurationTooLong { policy, .. }
            | BrokenRule::Validation { policy, .. } => Some(policy),
            _ => None,
        }
    }

    /// The reason of Events and conditions, in CamelCase.
    pub fn reason(&self) -> &'static str {
        reason_of(self.field.path())
    }

    /// Whether the value is well formed but not offered, which the API sets apart from malformed.
    pub fn is_unsupported(&self) -> bool {
        let is_key = matches!(
            *self.rule,
            BrokenRule::KeySize { .. } | BrokenRule::KeyEncoding { .. }
        );
        is_key || self.is_service_denial()
    }

    /// Whether no policy of the namespace allows the service name.
    pub fn is_service_denial(&self) -> bool {
        matches!(
            *self.rule,
            BrokenRule::ServiceName { .. } | BrokenRule::NoPolicy { .. }
        )
    }
}
