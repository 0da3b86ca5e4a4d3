//! The policy of a platform team: [`PkiPolicy`].

use super::{Defaults, KeyAlgorithm, Usage, rules};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a platform team permits. A Pki is admitted when one policy permits all of it; without a
/// policy nothing is.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
#[kube(
    group = "box.com",
    version = "v1",
    kind = "PkiPolicy",
    plural = "pkipolicies",
    category = "pki-operator",
    status = "PkiPolicyStatus",
    derive = "PartialEq",
    doc = "What certificates the Pkis of some namespaces may ask for. A Pki is admitted when one policy permits all of it; without a policy, none is.",
    printcolumn(
        name = "Services",
        type_ = "string",
        json_path = ".spec.serviceNames",
        description = "The service names that are allowed"
    ),
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".spec.namespaces.names",
        description = "The namespaces that the policy is for; empty: all"
    ),
    printcolumn(
        name = "MaxDuration",
        type_ = "string",
        json_path = ".spec.maxDuration",
        description = "The longest lifetime of a certificate"
    ),
    printcolumn(
        name = "Admitted",
        type_ = "integer",
        json_path = ".status.admitted",
        description = "How many Pkis it admits"
    ),
    printcolumn(
        name = "Refused",
        type_ = "integer",
        json_path = ".status.refused",
        description = "How many Pkis of its namespaces no policy admits"
    ),
    printcolumn(
        name = "Problem",
        type_ = "string",
        json_path = ".status.conditions[?(@.status=='False')].message",
        description = "What is wrong with the policy",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PkiPolicySpec {
    /// The namespaces whose Pkis this policy is for. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceScope>,

    /// The service names that are allowed: exact names, globs (`*` stands for any run of
    /// characters), or either with `{namespace}`, which stands for the namespace of the Pki.
    /// Example: app1, `{namespace}-*`.
    #[schemars(length(min = 1, max = 50_000), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[-a-z0-9*{}]+$'))")
        .message("each must be a service name such as app1, or a pattern of lower-case letters, digits, '-', '*' and {namespace}"))]
    pub service_names: Vec<String>,

    /// Further DNS names that are allowed, compared label by label: `*` stands for one whole label,
    /// `{namespace}` for the namespace of the Pki. The last label, and internationalized ones
    /// (`xn--`), must be spelled out. Names inside the cluster (`*.svc`, single labels, localhost)
    /// are never allowed this way; podNames is about those of pods. Example:
    /// `*.{namespace}.example.com`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 253)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^(([-a-zA-Z0-9]|[{]namespace[}])+[.]|[*][.])*([-a-zA-Z0-9]|[{]namespace[}])+[.]?$'))")
        .message("each must be a DNS name, whose labels but the last may be *, for example *.{namespace}.example.com"))]
    pub dns_names: Vec<String>,

    /// Whether a Pki may ask in dnsNames for the names of pods below its own Service, as the
    /// members of a StatefulSet have them: `<pod>.<serviceName>.<namespace>.svc`, with the
    /// cluster's domain or without, and `*` for the pod. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_names: Option<bool>,

    /// The IP addresses that are allowed, as ranges in CIDR notation or single addresses, for
    /// example 10.0.0.0/8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 49)))]
    #[x_kube(validation = Rule::new("self.all(range, isIP(range) || isCIDR(range))")
        .message("each must be an IP address or a range in CIDR notation, for example 10.0.0.0/8"))]
    pub ip_addresses: Vec<String>,

    /// The URIs that are allowed, compared segment by segment: `*` stands for one whole segment
    /// between two slashes, at the end of the pattern for one or more, `{namespace}` for the
    /// namespace of the Pki. Scheme and host must be spelled out. Example:
    /// `spiffe://example.com/ns/{namespace}/*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 2048)))]
    #[x_kube(validation = Rule::new("self.all(uri, uri.matches('^[a-zA-Z][-+.a-zA-Z0-9]*:(//[^*/]+(/.*)?|[^*/].*)$'))")
        .message("each must be a URI whose scheme and host are spelled out, for example spiffe://example.com/ns/{namespace}/*"))]
    pub uris: Vec<String>,

    /// The kinds of private key that are allowed. Default: all that the operator offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub private_keys: Vec<PermittedKey>,

    /// What certificates may be used for: `server auth`, `client auth` or both. Default: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// The longest duration that a Pki may ask for, in hours, minutes and seconds. Default: no
    /// limit but the CA's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::lifetime())]
    pub max_duration: Option<String>,

    /// Values for what a Pki leaves out. Each must be permitted by this policy. A value that
    /// neither the Pki nor this policy has is the built-in default, or the nearest to it that this
    /// policy permits: a Pki is never refused for what it leaves out. A changed default counts from
    /// the next renewal of a certificate. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// Further rules in CEL, the Common Expression Language. All must hold. There are at most 10,
    /// which together take at most 300,000 steps for the largest Pki. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub validations: Vec<Validation>,
}

/// A rule in CEL, as a ValidatingAdmissionPolicy has it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// A CEL expression that is true for a Pki that is permitted. `pki` is the Pki, as its
    /// certificate will be: names in lower case and without a trailing dot, defaults filled in.
    /// `namespaceObject` is its Namespace, of which there are `metadata.name` and
    /// `metadata.labels`. An expression that fails, over a label that is not there for example, is
    /// not true. It takes at most 250,000 steps for the largest Pki, and lists that are written out
    /// have at most 256 elements; the pattern of `matches()` is written between quotes. Example:
    /// `pki.spec.dnsNames.size() <= 5`.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
    /// What the author of a Pki reads for whom it is not true: what is wrong, and what to write
    /// instead.
    #[schemars(length(min = 1, max = 500))]
    pub message: String,
}

/// How a [`PkiPolicy`] stands.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PkiPolicyStatus {
    /// `Valid` says whether every rule of the policy can be read and can match; its message says
    /// what to write instead.
    #[serde(default, deserialize_with = "super::stored::conditions")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = super::conditions::MAX_CONDITIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many Pkis it admits. A Pki that several policies permit is counted for the first of them
    /// by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<i64>,
    /// How many Pkis of its namespaces no policy admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
}

/// Which namespaces a [`PkiPolicy`] is for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceScope {
    /// Names of namespaces, or globs such as `team-*`. Empty: all namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[-a-z0-9*]+$'))")
        .message("each must be the name of a namespace, or a glob such as team-*"))]
    pub names: Vec<String>,

    /// Labels that the namespaces have, as the selector of a Deployment has it; both must hold
    /// where names are given too. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Which labels a namespace has. All that is written must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels with just these values. Example: `team: payments`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on single labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// What is required of one label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("write values with In and NotIn, and none with Exists and DoesNotExist")
    .field_path(".values"))]
pub struct LabelRequirement {
    /// The key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`: it has one of the values; `NotIn`: it has none of them, or there is no such label;
    /// `Exists`; `DoesNotExist`.
    pub operator: LabelOperator,
    /// The values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    pub values: BTreeSet<String>,
}

/// How a [`LabelRequirement`] compares.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is not there.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// A kind of private key that a [`PkiPolicy`] permits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PermittedKey {
    /// The algorithm.
    pub algorithm: KeyAlgorithm,
    /// The least size in bits, for example 256 for ECDSA or 3072 for RSA. Default: any that is
    /// offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub min_size: Option<i32>,
}
