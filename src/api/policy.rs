//! The policy of a platform team: [`PkiPolicy`].

use super::{Defaults, KeyAlgorithm, Usage, rules};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Policy of a platform team. A Pki is admitted when one policy permits all of it; without a policy
/// none is.
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
    doc = "Policy for the Pkis of some namespaces: the certificates that they may request. The operator admits a Pki if one policy permits all of it. Without a policy, it admits none.",
    printcolumn(
        name = "Services",
        type_ = "string",
        json_path = ".spec.serviceNames",
        description = "Permitted service names"
    ),
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".spec.namespaces.names",
        description = "Namespaces that the policy applies to; empty: all"
    ),
    printcolumn(
        name = "MaxDuration",
        type_ = "string",
        json_path = ".spec.maxDuration",
        description = "Maximum lifetime of a certificate"
    ),
    printcolumn(
        name = "Admitted",
        type_ = "integer",
        json_path = ".status.admitted",
        description = "Number of Pkis that the policy admits"
    ),
    printcolumn(
        name = "Refused",
        type_ = "integer",
        json_path = ".status.refused",
        description = "Number of Pkis of its namespaces that no policy admits"
    ),
    printcolumn(
        name = "Problem",
        type_ = "string",
        json_path = ".status.conditions[?(@.status=='False')].message",
        description = "Fault of the policy, with the fix",
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
    /// Namespaces that this policy applies to. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceScope>,

    /// Permitted service names: names, or globs in which `*` stands for any characters. In both,
    /// `{namespace}` stands for the namespace of the Pki. Example: app1, `{namespace}-*`.
    #[schemars(length(min = 1, max = 50_000), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[-a-z0-9*{}]+$'))")
        .message("each must be a service name such as app1, or a pattern of lower-case letters, digits, '-', '*' and {namespace}"))]
    pub service_names: Vec<String>,

    /// Permitted additional DNS names. `*` stands for one whole label, `{namespace}` for the
    /// namespace of the Pki. Spell out the last label and internationalized labels (`xn--`). This
    /// field never permits names inside the cluster (`*.svc`, single labels, localhost); for names
    /// of pods, see podNames. Example: `*.{namespace}.example.com`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 253)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^(([-a-zA-Z0-9]|[{]namespace[}])+[.]|[*][.])*([-a-zA-Z0-9]|[{]namespace[}])+[.]?$'))")
        .message("each must be a DNS name, whose labels but the last may be *, for example *.{namespace}.example.com"))]
    pub dns_names: Vec<String>,

    /// Whether the dnsNames of a Pki may have names of pods behind its own Service, such as the
    /// members of a StatefulSet. These are `<pod>.<serviceName>.<namespace>.svc`, with or without
    /// the cluster domain; the pod may be `*`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_names: Option<bool>,

    /// Permitted IP addresses: ranges in CIDR notation or single addresses, for example 10.0.0.0/8.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 49)))]
    #[x_kube(validation = Rule::new("self.all(range, isIP(range) || isCIDR(range))")
        .message("each must be an IP address or a range in CIDR notation, for example 10.0.0.0/8"))]
    pub ip_addresses: Vec<String>,

    /// Permitted URIs. `*` stands for one whole segment between two slashes, and at the end of the
    /// pattern for one or more segments. `{namespace}` stands for the namespace of the Pki. Spell
    /// out scheme and host. Example: `spiffe://example.com/ns/{namespace}/*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 2048)))]
    #[x_kube(validation = Rule::new("self.all(uri, uri.matches('^[a-zA-Z][-+.a-zA-Z0-9]*:(//[^*/]+(/.*)?|[^*/].*)$'))")
        .message("each must be a URI whose scheme and host are spelled out, for example spiffe://example.com/ns/{namespace}/*"))]
    pub uris: Vec<String>,

    /// Permitted private keys, by algorithm and minimum size. Default: all that the operator
    /// supports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub private_keys: Vec<PermittedKey>,

    /// Permitted usages of certificates: `server auth`, `client auth` or both. Default: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// Maximum duration of a Pki, in hours, minutes and seconds, for example 2160h. Default: no
    /// limit except the CA's own expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::lifetime())]
    pub max_duration: Option<String>,

    /// Values for fields that a Pki omits. This policy must permit each value. A field that both
    /// omit gets the built-in default, or the nearest value that this policy permits. So the
    /// operator never refuses a Pki for an omitted field. A changed default applies from the next
    /// renewal of a certificate. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// More rules in CEL, the Common Expression Language. A Pki must satisfy all of them. At most
    /// 10 rules, with together at most 300,000 steps for the largest Pki. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub validations: Vec<Validation>,
}

/// Rule in CEL, in the form of a ValidatingAdmissionPolicy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// CEL expression that is true for a permitted Pki. `pki` is the Pki as its certificate will
    /// be: names in lower case without a trailing dot, and defaults filled in. `namespaceObject`
    /// is its Namespace, with `metadata.name` and `metadata.labels`. An expression with an error,
    /// such as a missing label, is not true. At most 250,000 steps for the largest Pki, and 256
    /// elements in a literal list. The pattern of `matches()` must be a literal. Example:
    /// `pki.spec.dnsNames.size() <= 5`.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
    /// Message for the author of a Pki that breaks the rule: the fault, and the text to write
    /// instead.
    #[schemars(length(min = 1, max = 500))]
    pub message: String,
}

/// Observed state of a PkiPolicy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PkiPolicyStatus {
    /// `Valid` says whether every rule of the policy can be read and can match. If not, the message
    /// says what to write instead.
    #[serde(default, deserialize_with = "super::stored::conditions")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = super::conditions::MAX_CONDITIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of Pkis that the policy admits. A Pki that several policies permit counts for the
    /// first of them by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<i64>,
    /// Number of Pkis of its namespaces that no policy admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
}

/// Namespaces that a [`PkiPolicy`] applies to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceScope {
    /// Names of namespaces, or globs such as `team-*`. Empty: all namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[-a-z0-9*]+$'))")
        .message("each must be the name of a namespace, or a glob such as team-*"))]
    pub names: Vec<String>,

    /// Selector for the labels of the namespaces, in the form of a Deployment's selector. If names
    /// are set too, a namespace must match both. Default: any labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Selector for the labels of a namespace. All requirements must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels with exactly these values. Example: `team: payments`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on single labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// Requirement on one label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("write values with In and NotIn, and none with Exists and DoesNotExist")
    .field_path(".values"))]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`: the label has one of the values. `NotIn`: the label has none of them, or does not
    /// exist. `Exists`: the label exists. `DoesNotExist`: the label does not exist.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    pub values: BTreeSet<String>,
}

/// How a [`LabelRequirement`] compares.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or does not exist.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

/// Private key that a PkiPolicy permits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PermittedKey {
    /// Algorithm of the key.
    pub algorithm: KeyAlgorithm,
    /// Minimum size in bits, for example 256 for ECDSA or 3072 for RSA. Default: every supported
    /// size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub min_size: Option<i32>,
}
