//! The values of fields that a [`PkiSpec`](super::PkiSpec) leaves out.

use super::{Outputs, PrivateKey, SecretTemplate, Usage, rules};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Values for what a Pki leaves out: as a policy has them, or as they were used for a certificate.
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

    /// How long before its expiry the certificate is renewed, written like duration; at most nine
    /// tenths of it. It is not used for a Pki whose duration is too short for it. Default: a third
    /// of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::time_before())]
    pub renew_before: Option<String>,

    /// How long before its expiry the certificate is renewed, in percent of the duration, from 1 to
    /// 90; instead of renewBefore. Default: a third of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 90))]
    pub renew_before_percentage: Option<i32>,

    /// Usages of the certificate in TLS: `server auth`, `client auth` or both. Default: all that
    /// are permitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// Kind of the certificate's private key. Each field is used where the Pki leaves it out. The
    /// size and the encoding go with this algorithm, and are not used for another one. Default:
    /// ECDSA with the curve P-256, or the first kind of key that is permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// Further files for the Secret. Each is added where the Pki does not say otherwise. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,

    /// Labels and annotations for the Secret, besides those of the Pki, which win. Together they
    /// have at most 4096 bytes. Default: none but the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
}
