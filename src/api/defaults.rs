//! The values of fields that a [`PkiSpec`](super::PkiSpec) omits.

use super::{Outputs, PrivateKey, SecretTemplate, Usage, rules};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Values for fields that a Pki omits: those of a policy, or those that a certificate was issued
/// with.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_renewal_time())]
pub struct Defaults {
    /// Lifetime of the certificate in hours, minutes and seconds, for example 720h; at least 1h.
    /// Default: 2160h (90 days), or maxDuration if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::lifetime())]
    pub duration: Option<String>,

    /// Time before expiry at which the certificate is renewed, written like duration. At most nine
    /// tenths of the duration. A Pki with a duration too short for it does not use it. Default: a
    /// third of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::time_before())]
    pub renew_before: Option<String>,

    /// Time before expiry at which the certificate is renewed, in percent of the duration, from 1
    /// to 90. Write this or renewBefore, not both. Default: a third of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 90))]
    pub renew_before_percentage: Option<i32>,

    /// Usages of the certificate in TLS: `server auth`, `client auth` or both. Default: all
    /// permitted usages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// Algorithm, size, encoding and rotation of the private key. Each field applies if the Pki
    /// omits it. Size and encoding apply only with this algorithm. Default: ECDSA with the curve
    /// P-256, or the first permitted key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// More files for the Secret. Each applies if the Pki does not set its field. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,

    /// Labels and annotations for the Secret, together at most 4096 bytes. Those of the Pki take
    /// precedence. Default: none except the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
}
