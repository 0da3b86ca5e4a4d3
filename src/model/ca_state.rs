//! State of the CA besides its keys, as a ConfigMap keeps it.

use crate::model::rollout::RolloutReport;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use pki_certs::{AuthorityError, CaCertificate, Trust};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Which CA signs, and which are trusted beside it.
#[derive(Clone, Debug)]
pub struct CaState {
    /// The one that signs.
    pub current: CaCertificate,
    /// The time after which none of its pod certificates is valid; `None` if it has signed none.
    pub pod_leaves_until: Option<Timestamp>,
    /// Its successor.
    pub next: Option<Next>,
    /// Those that signed before, the newest first.
    pub retired: Vec<Retired>,
    /// Summary of a rotation, for people. The operator writes it and does not read it.
    pub report: Option<RolloutReport>,
}

/// A CA that is being made known before it signs.
#[derive(Clone, Debug)]
pub struct Next {
    /// Its certificate.
    pub ca: CaCertificate,
    /// Since when it is being made known.
    pub since: Option<Timestamp>,
    /// Since when every Secret has it in `ca.crt`, or is not waited for any more; `None` before.
    pub published: Option<Timestamp>,
    /// Whether those before it are to be withdrawn even if they are in use.
    pub is_forced: bool,
}

/// A CA that signs no more.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Its certificate.
    pub ca: CaCertificate,
    /// Since when another signs.
    pub since: Timestamp,
    /// Since when no Secret has a leaf of it; `None` while one has.
    pub unused: Option<Timestamp>,
    /// Since when it is to be withdrawn even if it is in use; `None` if it stays while it is used.
    pub forced: Option<Timestamp>,
    /// The time after which none of its pod certificates is valid; `None` if it has signed none.
    pub pod_leaves_until: Option<Timestamp>,
    /// Whether its root is trusted no more.
    pub is_withdrawn: bool,
    /// How long leaders have seen it retired. Their monotonic clocks count that, so no wrong time
    /// can make it longer.
    pub kept: SignedDuration,
}

impl Retired {
    /// A CA whose successor signs from now on.
    pub fn since(ca: CaCertificate, since: Timestamp) -> Self {
        Self {
            ca,
            since,
            unused: None,
            forced: None,
            pod_leaves_until: None,
            is_withdrawn: false,
            kept: SignedDuration::ZERO,
        }
    }
}

impl CaState {
    /// The state of a CA that has just begun.
    pub fn of(current: CaCertificate) -> Self {
        Self {
            current,
            pod_leaves_until: None,
            next: None,
            retired: Vec::new(),
            report: None,
        }
    }

    /// Those that sign no more and are trusted still, the newest first.
    pub fn trusted(&self) -> impl Iterator<Item = &Retired> {
        self.retired.iter().filter(|retired| !retired.is_withdrawn)
    }

    /// Reads the ConfigMap. A CA that signed is known at any time; a successor that is not in force
    /// is published again when it is.
    pub fn read(stored: &ConfigMap, now: Timestamp) -> Result<Self, String> {
        let text = |key: &str| stored.data.as_ref().and_then(|data| data.get(key));
        let time = |key: &str| text(key).and_then(|time| time.parse().ok());
        let certificate = |key: &str| text(key).map(|pem| certificate(key, pem, now)).transpose();
        let current = certificate(CURRENT)?
            .flatten()
            .ok_or_else(|| format!("{CURRENT} is missing"))?;
        let next = certificate(NEXT)?.flatten().map(|ca| Next {
            ca,
            since: time(NEXT_SINCE),
            published: time(PUBLISHED),
            is_forced: text(FORCED).is_some_and(|forced| forced == "true"),
        });
        let retired = text(RETIRED).map(|text| read_retired(text, now));
        let mut retired = retired.transpose()?.unwrap_or_default();
        let previous = certificate(PREVIOUS)?.flatten();
        // The version before knows only this one.
        let is_known = |ca: &CaCertificate| retired.iter().any(|known| known.ca == *ca);
        if let Some(ca) = previous.filter(|ca| !is_known(ca)) {
            // Without it the leaves of the predecessor would be replaced at once, which is safe.
            let since = time(SINCE).unwrap_or(Timestamp::UNIX_EPOCH);
            let unused = time(UNUSED);
            let previous = Retired::since(ca, since);
            retired.insert(0, Retired { unused, ..previous });
        }
        retired.retain(|retired| retired.ca.fingerprint() != current.fingerprint());
        Ok(Self {
            current,
            pod_leaves_until: time(POD_LEAVES),
            next,
            retired,
            report: None,
        })
    }

    /// The CAs that clients trust, in an order by content: `ca.crt` stays as it is when a successor
    /// begins to sign.
    pub fn trust(&self) -> Trust {
        let next = self.next.iter().map(|next| &next.ca);
        let retired = self.trusted().map(|retired| &retired.ca);
        let mut trusted: Vec<_> = std::iter::once(&self.current)
            .chain(next)
            .chain(retired)
            .collect();
        trusted.sort_by(|a, b| a.root_pem().cmp(b.root_pem()));
        Trust::of(trusted)
    }

    /// The ConfigMap's data: for the operator itself, and for people (`ca.crt`). An absent entry is
    /// null, so that a merge patch removes it.
    pub fn data(&self) -> Map<String, Value> {
        let next = self.next.as_ref();
        let previous = self.trusted().next();
        let retired: Vec<_> = self.retired.iter().map(Entry::of).collect();
        let retired = (!retired.is_empty()).then(|| json!(retired).to_string());
        let report = self.report.as_ref().map(|report| json!(report).to_string());
        let Value::Object(data) = json!({
            "ca.crt": self.trust().pem(),
            CURRENT: path(&self.current),
            POD_LEAVES: self.pod_leaves_until,
            NEXT: next.map(|next| path(&next.ca)),
            NEXT_SINCE: next.and_then(|next| next.since),
            PUBLISHED: next.and_then(|next| next.published),
            FORCED: next.filter(|next| next.is_forced).map(|_| "true"),
            PREVIOUS: previous.map(|previous| path(&previous.ca)),
            SINCE: previous.map(|previous| previous.since),
            UNUSED: previous.and_then(|previous| previous.unused),
            RETIRED: retired,
            REPORT: report,
        }) else {
            unreachable!("it is written as an object above")
        };
        data
    }
}

const CURRENT: &str = "current.crt";
const POD_LEAVES: &str = "pod-certificates-until";
const NEXT: &str = "next.crt";
const NEXT_SINCE: &str = "next-since";
const PUBLISHED: &str = "next-published";
const FORCED: &str = "next-forced";
/// The newest that is trusted and signs no more. The version before reads it here.
const PREVIOUS: &str = "previous.crt";
const SINCE: &str = "previous-since";
const UNUSED: &str = "previous-unused";
const RETIRED: &str = "retired.json";
/// Key of the summary of a rotation, which `kubectl pki status` reads.
pub(crate) const REPORT: &str = "rotation.json";

/// A retired CA as it is written.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    certificate: String,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unused: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forced: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_certificates_until: Option<Timestamp>,
    #[serde(default)]
    is_withdrawn: bool,
    #[serde(default)]
    kept_seconds: i64,
}

impl Entry {
    fn of(retired: &Retired) -> Self {
        Self {
            certificate: path(&retired.ca),
            since: retired.since,
            unused: retired.unused,
            forced: retired.forced,
            pod_certificates_until: retired.pod_leaves_until,
            is_withdrawn: retired.is_withdrawn,
            kept_seconds: retired.kept.as_secs(),
        }
    }
}

fn read_retired(text: &str, now: Timestamp) -> Result<Vec<Retired>, String> {
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| format!("{RETIRED}: {error}"))?;
    let entries = entries.into_iter().map(|entry| {
        let ca = certificate(RETIRED, &entry.certificate, now)?;
        Ok(ca.map(|ca| Retired {
            ca,
            since: entry.since,
            unused: entry.unused,
            forced: entry.forced,
            pod_leaves_until: entry.pod_certificates_until,
            is_withdrawn: entry.is_withdrawn,
            kept: SignedDuration::from_secs(entry.kept_seconds),
        }))
    });
    entries.filter_map(Result::transpose).collect()
}

/// Reads one certificate with its path; `None` if that is not in force and need not be remembered.
fn certificate(key: &str, pem: &str, now: Timestamp) -> Result<Option<CaCertificate>, String> {
    let read = certificate_at_any_time(pem.as_bytes(), &[], now);
    let ca = read.map_err(|error| format!("{key}: {error}"))?;
    let is_in_force = ca.not_before() <= now && now <= ca.not_after();
    Ok(Some(ca).filter(|_| is_in_force || key != NEXT))
}

/// Reads the certificate of a CA, which may have expired or not have begun.
pub(crate) fn certificate_at_any_time(
    chain: &[u8],
    root: &[u8],
    now: Timestamp,
) -> Result<CaCertificate, AuthorityError> {
    let read = |now| CaCertificate::from_pem(chain, root, now);
    match read(now) {
        Err(AuthorityError::Expired(_, not_after)) => read(not_after),
        Err(AuthorityError::NotYetValid(_, not_before)) => read(not_before),
        read => read,
    }
}

/// The whole path in PEM, from the CA to its root.
fn path(ca: &CaCertificate) -> String {
    format!("{}{}", ca.chain_pem(), ca.root_pem())
}

#[cfg(test)]
mod tests;
