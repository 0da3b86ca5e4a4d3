//! `kubectl pki status`: all Pkis, the most urgent ones first.

use super::output::pretty;
use super::words;
use crate::api::{Delivery, Pki, READY};
use crate::guide;
use crate::model::rollout::{Phase, RolloutReport};
use crate::policy;
use crate::util::text;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Serialize;

/// One Pki, as `-o json` shows it: fields stay, more may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    namespace: String,
    name: String,
    service: String,
    /// `True` or `False`, or `Unknown` before the first reconciliation.
    ready: String,
    reason: String,
    message: String,
    not_after: Option<String>,
    renewal_time: Option<String>,
    /// Empty if pods get their certificates by themselves.
    secret: String,
    #[serde(skip)]
    is_for_pods: bool,
    #[serde(skip)]
    ends: Option<Timestamp>,
    #[serde(skip)]
    renews: Option<Timestamp>,
}

/// The Pkis as rows: those without a certificate first, then by when the certificate ends, then
/// those whose pods are served.
pub fn rows<'a>(pkis: impl IntoIterator<Item = &'a Pki>) -> Vec<Row> {
    let mut rows: Vec<_> = pkis.into_iter().map(Row::of).collect();
    // Pods renew by themselves.
    let key = |row: &Row| (row.is_for_pods && row.ready == "True", row.ends);
    rows.sort_by(|a, b| (key(a), &a.namespace, &a.name).cmp(&(key(b), &b.namespace, &b.name)));
    rows
}

impl Row {
    fn of(pki: &Pki) -> Self {
        let status = pki.status.as_ref();
        let ready = pki.condition(READY);
        let time = |time: Option<&Time>| time.map(|time| time.0);
        let ends = time(status.and_then(|status| status.not_after.as_ref()));
        let secret = match pki.delivery() {
            Delivery::Secret => pki.secret_name(),
            Delivery::Pod => "",
        };
        let renews = time(status.and_then(|status| status.renewal_time.as_ref()));
        Self {
            namespace: pki.namespace().unwrap_or_default(),
            name: pki.name_any(),
            service: pki.spec.service_name.clone(),
            ready: ready.map_or("Unknown", |ready| &ready.status).to_owned(),
            reason: ready.map_or("", |ready| &ready.reason).to_owned(),
            message: ready.map_or("", |ready| &ready.message).to_owned(),
            not_after: ends.map(|time| time.to_string()),
            renewal_time: renews.map(|time| time.to_string()),
            secret: secret.to_owned(),
            is_for_pods: pki.delivery() == Delivery::Pod,
            ends,
            // A refused Pki is not renewed.
            renews: renews.filter(|_| !is_refused(pki)),
        }
    }
}

/// Whether no policy permits the Pki: its certificate is not renewed then.
pub(super) fn is_refused(pki: &Pki) -> bool {
    let ready = pki.condition(READY);
    ready.is_some_and(|ready| ready.status == "False" && policy::is_reason(&ready.reason))
}

/// A table for people.
pub fn table(rows: &[Row], now: Timestamp) -> String {
    type Column<'a> = (&'static str, &'a dyn Fn(&Row) -> String);
    let until =
        |time: Option<Timestamp>| time.map_or_else(String::new, |time| words::until(time, now));
    let columns: [Column<'_>; 8] = [
        ("NAMESPACE", &|row| row.namespace.clone()),
        ("NAME", &|row| row.name.clone()),
        ("SERVICE", &|row| row.service.clone()),
        ("READY", &|row| row.ready.clone()),
        ("REASON", &|row| row.reason.clone()),
        ("EXPIRES-IN", &|row| until(row.ends)),
        ("RENEWAL", &|row| until(row.renews)),
        ("SECRET", &|row| row.secret.clone()),
    ];
    let rows = rows.iter().map(|row| columns.map(|(_, cell)| cell(row)));
    words::table(columns.map(|(name, _)| name), &rows.collect::<Vec<_>>())
}

/// Prints the objects that a rotation of the CA waits for, and what to do for each.
pub fn rotation(report: &RolloutReport, now: Timestamp) -> String {
    let RolloutReport { since, blocked, .. } = report;
    let force = if report.forced { " (forced)" } else { "" };
    let beginning = match report.phase {
        Phase::Publishing => {
            format!("Publishing the next CA began at {since}{force}.")
        }
        Phase::Replacing => {
            format!("Replacing the certificates of the previous CA began at {since}{force}.")
        }
        Phase::Retained => format!(
            "The CA that was replaced at {since} stays trusted until its last certificate is replaced or ends."
        ),
        Phase::Withdrawn => format!(
            "The CA that was withdrawn by force at {since} is no longer trusted, and some of its certificates are still in use."
        ),
    };
    let until = report.until.filter(|_| *blocked > 0);
    let until = until.map_or_else(String::new, |until| {
        let left = words::until(until, now);
        format!(" The rotation continues without the following at {until} (in {left}).")
    });
    let blockers = report.blockers.iter().map(|blocker| {
        let remedy = guide::advice(&blocker.reason).map(|advice| advice.remedy);
        let remedy = remedy.map(|remedy| format!("    what to do: {remedy}\n"));
        let (message, remedy) = (text::line(&blocker.message), remedy.unwrap_or_default());
        format!("  {blocker}\n    {message}\n{remedy}")
    });
    let blockers: String = blockers.collect();
    let more = match blocked.saturating_sub(report.blockers.len()) {
        0 => String::new(),
        more => format!("  and {more} more\n"),
    };
    format!("\n{beginning}{until}\n{blockers}{more}")
}

/// A list for programs.
pub fn json(rows: &[Row]) -> String {
    pretty(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pki(name: &str, status: &serde_json::Value) -> Pki {
        serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"namespace": "ns", "name": name},
            "spec": {"serviceName": "app"}, "status": status,
        }))
        .unwrap()
    }

    fn pkis() -> [Pki; 4] {
        let ready = |status: &str, reason: &str| {
            json!([{"type": "Ready", "status": status, "reason": reason,
            "message": "m", "lastTransitionTime": "2030-01-01T00:00:00Z"}])
        };
        [
            pki(
                "later",
                &json!({"conditions": ready("True", "PkiReady"), "notAfter": "2030-03-01T00:00:00Z", "renewalTime": "2030-02-01T00:00:00Z"}),
            ),
            pki(
                "over",
                &json!({"conditions": ready("False", "PkiUriError"), "notAfter": "2029-12-31T00:00:00Z"}),
            ),
            pki("new", &json!(null)),
            pki(
                "refused",
                &json!({"conditions": ready("False", "PkiServiceNameError")}),
            ),
        ]
    }

    #[test]
    fn pkis_without_a_certificate_come_first_then_those_whose_certificate_ends_first() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let expected = "\
NAMESPACE   NAME      SERVICE   READY     REASON                EXPIRES-IN   RENEWAL   SECRET
ns          new       app       Unknown   -                     -            -         new
ns          refused   app       False     PkiServiceNameError   -            -         refused
ns          over      app       False     PkiUriError           24h ago      -         over
ns          later     app       True      PkiReady              59d          31d       later
";
        assert_eq!(table(&rows(&pkis()), now), expected);
    }

    #[test]
    fn objects_that_block_a_rotation_are_named_with_a_remedy() {
        let report: RolloutReport = serde_json::from_value(json!({
            "phase": "publishing", "since": "2030-01-01T00:00:00Z", "until": "2030-01-08T00:00:00Z", "blocked": 9,
            "blockers": [
                {"namespace": "ns", "name": "frozen", "reason": "PkiIssuanceFailed", "message": "it is\u{1b} immutable"},
                {"namespace": "gone", "name": "", "reason": "NamespaceUnread", "message": "its Pkis cannot be read"},
            ],
        }))
        .unwrap();
        let remedy = guide::advice("PkiIssuanceFailed").unwrap().remedy;
        let expected = format!(
            "
Publishing the next CA began at 2030-01-01T00:00:00Z. The rotation continues without the following at 2030-01-08T00:00:00Z (in 6d).
  ns/frozen: PkiIssuanceFailed
    it is\\u{{1b}} immutable
    what to do: {remedy}
  namespace gone: NamespaceUnread
    its Pkis cannot be read
  and 7 more
"
        );
        let now = "2030-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(rotation(&report, now), expected);
    }

    #[test]
    fn programs_get_the_same_with_times() {
        let read: serde_json::Value = serde_json::from_str(&json(&rows(&pkis()))).unwrap();
        let expected = json!({"namespace": "ns", "name": "later", "service": "app", "ready": "True", "reason": "PkiReady", "message": "m",
            "notAfter": "2030-03-01T00:00:00Z", "renewalTime": "2030-02-01T00:00:00Z", "secret": "later"});
        assert_eq!(read[3], expected);
    }
}
