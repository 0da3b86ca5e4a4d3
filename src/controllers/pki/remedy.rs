//! Remedies for people when the API server refuses a Secret. Its own message has only the cause.

use crate::k8s::api_error::is_namespace_ending;

/// The remedy to append to the API server's message. It is recognized by the message where the
/// status has no other sign: if the words change, there is no remedy.
pub(super) fn remedy(error: &kube::Error) -> Option<&'static str> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    let says = |words: &str| status.message.contains(words);
    if is_namespace_ending(error) {
        Some("the namespace is being deleted, and its Pkis with it: you need not do anything")
    } else if says("exceeded quota: ") {
        Some(
            "delete what is no longer needed there, or ask the owner of that ResourceQuota for more (kubectl describe quota)",
        )
    } else if says("the fence permits the operator's account ") {
        Some(
            "that policy belongs to the chart: delete the Secret if nobody needs its content, or choose another spec.secretName",
        )
    } else if says("field is immutable when `immutable` is set") {
        Some(
            "the Secret is immutable: delete it (kubectl delete secret), and the operator writes a new one at once, with another \
             certificate; then restart the pods that mounted it, because they keep the old content (kubectl rollout restart)",
        )
    } else if says("ValidatingAdmissionPolicy") || says("admission webhook ") {
        Some(
            "that rule does not belong to the operator: add what it requires by spec.secretTemplate, or ask the owner of the rule",
        )
    } else if status.code == 403 && says("User \"") && says(" cannot ") {
        Some(
            "the operator lacks that permission: the platform team must restore it (helm upgrade, with --force-conflicts if somebody \
             edited the role)",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn remedy_for(code: u16, message: &str, causes: &Value) -> Option<&'static str> {
        let status = json!({"status": "Failure", "code": code, "reason": "Forbidden", "message": message,
            "details": {"causes": causes}});
        let status = serde_json::from_value(status).expect("a status");
        remedy(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn each_refusal_has_its_remedy_and_what_is_not_known_has_none() {
        for (code, message, expected) in [
            (
                403,
                r#"secrets "a" is forbidden: exceeded quota: none, requested: secrets=1, used: secrets=0, limited: secrets=0"#,
                Some("ResourceQuota"),
            ),
            (
                403,
                r#"secrets "a" is forbidden: User "system:serviceaccount:x:y" cannot get resource "secrets" in API group """#,
                Some("the platform team"),
            ),
            (
                422,
                r#"secrets "a" is invalid: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no"#,
                Some("spec.secretTemplate"),
            ),
            (
                403,
                r#"secrets "a" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: the fence permits the operator's account to"#,
                Some("belongs to the chart"),
            ),
            (
                400,
                r#"admission webhook "a.example" denied the request: User "x" cannot do that"#,
                Some("spec.secretTemplate"),
            ),
            (500, "the server is on fire", None),
            (403, "forbidden", None),
        ] {
            let found = remedy_for(code, message, &json!([]));
            match expected {
                Some(words) => assert!(
                    found.is_some_and(|it| it.contains(words)),
                    "{message}: {found:?}"
                ),
                None => assert_eq!(found, None, "{message}"),
            }
        }
        let causes = json!([{"reason": "NamespaceTerminating", "message": "namespace a is being terminated"}]);
        let found = remedy_for(403, "unable to create new content in namespace a", &causes);
        assert!(
            found.is_some_and(|it| it.contains("is being deleted")),
            "{found:?}"
        );
    }
}
