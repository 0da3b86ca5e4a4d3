//! The obstacles between an existing Secret and a Pki, with their remedies.

use super::{TLS, controller};
use crate::api::Pki;
use crate::api::annotations::ADOPT;
use crate::util::text;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use pki_certs::VerifyError;

/// The reason for which a Secret is not this Pki's. Each one has a remedy of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another object controls it, as in `ConfigMap owner`; `None` where its name is not known.
    Controlled {
        /// Kind and name of the controller.
        by: Option<String>,
    },
    /// The annotation [`ADOPT`] names another Pki.
    OfferedTo(String),
    /// The Secret has another type, which never changes.
    OfType(String),
    /// The Secret is immutable.
    Immutable,
    /// The Secret is being deleted, and these finalizers hold it.
    Deleting(Vec<String>),
    /// The Secret has no owner and no offer.
    Unclaimed,
    /// The Secret has no owner and no offer by its metadata, which lack its type.
    Unread,
    /// The Secret has no owner and the operator's labels, but its certificate is for something
    /// else.
    Unproven(VerifyError),
}

impl Obstacle {
    /// The first obstacle between a Secret and this Pki; `None` if the Secret is offered to the Pki
    /// and can become its own.
    pub fn of(secret: &Secret, pki: &Pki) -> Option<Self> {
        let offered_to = secret.annotations().get(ADOPT);
        if let Some(controller) = controller(secret) {
            let by = format!("{} {}", controller.kind, controller.name);
            return Some(Self::Controlled { by: Some(by) });
        }
        if let Some(other) = offered_to.filter(|name| **name != pki.name_any()) {
            return Some(Self::OfferedTo(other.clone()));
        }
        let type_ = secret.type_.as_deref().unwrap_or("Opaque");
        if type_ != TLS {
            return Some(Self::OfType(type_.to_owned()));
        }
        if secret.immutable == Some(true) {
            return Some(Self::Immutable);
        }
        offered_to.is_none().then_some(Self::Unclaimed)
    }

    /// Finds the finalizers that hold a Secret which is being deleted: another deletion would
    /// change nothing. The garbage collector removes its own finalizers by itself.
    pub fn held(secret: &Secret) -> Option<Self> {
        secret.metadata.deletion_timestamp.as_ref()?;
        let mut finalizers = secret.finalizers().to_vec();
        finalizers.retain(|it| !["foregroundDeletion", "orphan"].contains(&it.as_str()));
        (!finalizers.is_empty()).then_some(Self::Deleting(finalizers))
    }

    /// The message for people, in at most `bytes`. A long cause is cut, and the remedy is not.
    pub fn message(&self, pki: &Pki, bytes: usize) -> String {
        let secret = text::printable(pki.secret_name());
        let before = format!(
            "Secret {secret} exists and does not belong to Pki {}, so it is left as it is: ",
            pki.display_name()
        );
        text::fit(&before, &self.cause(), &self.remedy(pki), bytes)
    }

    /// The cause; empty where the obstacle is that nothing is known in favor of the Pki.
    fn cause(&self) -> String {
        match self {
            Self::Unclaimed | Self::Unread => String::new(),
            Self::Controlled { by } => {
                text::line(by.as_deref().unwrap_or("another object")) + " controls it"
            }
            Self::OfferedTo(other) => {
                format!("its annotation {ADOPT} names \"{}\"", text::line(other))
            }
            Self::OfType(type_) => format!("its type is {}", text::line(type_)),
            Self::Immutable => "it is immutable, so nothing can be written into it".to_owned(),
            Self::Deleting(finalizers) => format!(
                "it is being deleted, which waits for its finalizers [{}]",
                text::first_of(finalizers, 5)
            ),
            Self::Unproven(fault) => format!(
                "it has no owner and the operator's labels, but was not issued for this Pki: {}",
                text::line(&fault.to_string())
            ),
        }
    }

    /// The remedy, which continues the cause.
    fn remedy(&self, pki: &Pki) -> String {
        let (secret, name) = (text::printable(pki.secret_name()), pki.name_any());
        let delete = format!(
            "delete the Secret (kubectl delete secret {secret} --namespace {})",
            pki.namespace().unwrap_or_default()
        );
        let other = "delete the Secret, choose another spec.secretName, or";
        let adopt = format!("annotate the Secret with {ADOPT}={name}");
        match self {
            Self::Unclaimed => format!("{other} {adopt} if its content may be replaced"),
            Self::Unread => {
                format!("{other}, if its type is {TLS} and its content may be replaced, {adopt}")
            }
            Self::Controlled { .. } => format!(
                "; {other}, if its content may be replaced, remove that owner reference and {adopt}"
            ),
            Self::OfferedTo(_) => {
                format!("; {other} write {ADOPT}={name} if its content may be replaced")
            }
            Self::OfType(_) => format!(
                ", a Pki needs {TLS}, and the type of a Secret cannot change; {delete} and the operator makes one of that type at \
                 once, or choose another spec.secretName"
            ),
            Self::Immutable => format!(
                "; {delete} and the operator makes one at once, or choose another spec.secretName"
            ),
            Self::Deleting(_) => "; remove those, or choose another spec.secretName".to_owned(),
            Self::Unproven(_) => format!("; {other} {adopt} if its content may be replaced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn message(changes: &[Value]) -> String {
        let mut secret = json!({"metadata": {"name": "app1-pki", "namespace": "ns"}, "type": TLS});
        for change in changes {
            json_patch::merge(&mut secret, change);
        }
        let pki = crate::api::tests::pki(json!({}));
        let obstacle = Obstacle::of(&serde_json::from_value(secret).unwrap(), &pki);
        obstacle.map_or_else(String::new, |it| it.message(&pki, 4096))
    }

    #[test]
    fn each_cause_is_named_with_a_remedy_that_can_work() {
        let owned = json!({"metadata": {"ownerReferences":
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "u", "controller": true}]}});
        let offered = |to: &str| json!({"metadata": {"annotations": {"box.com/adopt": to}}});
        let delete = "delete the Secret (kubectl delete secret app1-pki --namespace ns) and the operator makes one";
        for (changes, words) in [
            (
                vec![json!({})],
                vec![
                    "left as it is: delete the Secret, choose another spec.secretName, or annotate the \
                     Secret with box.com/adopt=app1-pki if its content may be replaced",
                ],
            ),
            (
                vec![owned.clone(), offered("app1-pki")],
                vec![
                    "left as it is: ConfigMap theirs controls it; ",
                    "remove that owner reference and annotate",
                ],
            ),
            (
                vec![offered("ns/app1-pki")],
                vec![
                    "its annotation box.com/adopt names \"ns/app1-pki\"; ",
                    "or write box.com/adopt=app1-pki if",
                ],
            ),
            (
                vec![json!({"type": "Opaque"}), offered("app1-pki")],
                vec![
                    "left as it is: its type is Opaque, a Pki needs kubernetes.io/tls",
                    delete,
                ],
            ),
            (
                vec![json!({"type": null})],
                vec!["its type is Opaque, ", delete],
            ),
            (
                vec![json!({"immutable": true}), offered("app1-pki")],
                vec!["left as it is: it is immutable", delete],
            ),
            (
                vec![
                    json!({"immutable": true}),
                    offered("other"),
                    json!({"type": "Opaque"}),
                    owned.clone(),
                ],
                vec!["ConfigMap theirs controls it"],
            ),
        ] {
            let message = message(&changes);
            for words in words {
                assert!(message.contains(words), "{changes:?}: {message}");
            }
            let is_offered_in_vain =
                message.contains("annotate") && message.contains("its type is");
            assert!(!is_offered_in_vain, "{message}");
        }
        assert_eq!(message(&[offered("app1-pki")]), "", "it can be taken");
    }

    #[test]
    fn a_long_cause_does_not_cut_the_remedy_off() {
        let long = "x\u{202e}".repeat(40_000);
        let fault = VerifyError::Rejected(long.clone());
        let pki = crate::api::tests::pki(json!({}));
        for obstacle in [
            Obstacle::Controlled {
                by: Some(long.clone()),
            },
            Obstacle::OfferedTo(long.clone()),
            Obstacle::OfType(long.clone()),
            Obstacle::Deleting(vec![long; 100]),
            Obstacle::Unproven(fault),
        ] {
            let message = obstacle.message(&pki, 1024);
            assert!(
                message.len() <= 1024 && message.contains("choose another spec.secretName"),
                "{message}"
            );
            assert!(!message.contains('\u{202e}'), "{message}");
        }
    }
}
