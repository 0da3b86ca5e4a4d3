//! Tests an installation: whether the API server refuses a bad Pki, in the operator's words.
//!
//! `helm test` runs it. All requests are dry runs. Pure functions [judge](judge_bad) the answers.

use crate::api::{Pki, PkiSpec};
use crate::k8s::client;
use crate::util::text::sentence;
use kube::api::PostParams;
use kube::core::Status;
use kube::{Api, Client};
use std::time::{Duration, Instant};

const NAME: &str = "pki-operator-self-test";
/// A name under `.invalid` (RFC 6761). Only a policy that permits everything permits it.
const FORBIDDEN: &str = "self-test.pki-operator.invalid";
const WEBHOOK: &str = "validate.pkis.box.com";
/// How long to try again: a policy takes a moment to be in force, and so does a webhook.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A fault of the installation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// The bad Pki was admitted.
    #[error(
        "a Pki for {FORBIDDEN} was admitted, so the API server does not ask the operator; check whether there is a ValidatingWebhookConfiguration with \
         {WEBHOOK} (kubectl get validatingwebhookconfigurations), whether it lets Pkis pass while no operator answers \
         (failurePolicy: Ignore), and whether a PkiPolicy permits every name"
    )]
    Admitted,
    /// The API server gets no answer.
    #[error("the API server cannot ask the operator: {0}; check whether its pods are ready")]
    Unreachable(String),
    /// Another webhook, or the API server, refused first.
    #[error("the answer is not the operator's: {0}")]
    Other(String),
    /// The good Pki, of this service, was refused.
    #[error("a Pki for the service {0} was not admitted: {1}")]
    Refused(String, String),
    /// The API server could not be asked.
    #[error("cannot ask the API server: {0}")]
    Api(#[from] client::ClientError),
}

/// Judges the answer to a Pki that nobody may have. Returns the refusal, if it is the operator's.
pub fn judge_bad(answer: Result<(), &Status>) -> Result<String, SelfTestError> {
    let Err(status) = answer else {
        return Err(SelfTestError::Admitted);
    };
    let said = sentence(&status.message);
    let refusal = format!("admission webhook \"{WEBHOOK}\" denied the request: ");
    match status.message.strip_prefix(&refusal) {
        // The first broken rule depends on the policies there are.
        Some(refusal) if refusal.contains(NAME) => {
            Ok(refusal.lines().map(sentence).collect::<Vec<_>>().join("\n"))
        }
        _ if said.contains(&format!("failed calling webhook \"{WEBHOOK}\"")) => {
            Err(SelfTestError::Unreachable(said))
        }
        _ => Err(SelfTestError::Other(said)),
    }
}

/// Judges the answer to a Pki for this service, which is to be admitted.
pub fn judge_good(service: &str, answer: Result<(), &Status>) -> Result<(), SelfTestError> {
    answer.map_err(|status| SelfTestError::Refused(service.to_owned(), sentence(&status.message)))
}

/// Runs the test until it passes, or for ten seconds. Calls `on_line` with each passed step.
/// `service` is one that everybody may have, if there is one.
pub async fn run(
    client: &Client,
    namespace: &str,
    service: Option<&str>,
    mut on_line: impl FnMut(&str),
) -> Result<(), SelfTestError> {
    let start = Instant::now();
    loop {
        match ask(client, namespace, service).await {
            Ok(refusal) => {
                on_line(&format!("a forbidden name is refused: {refusal}"));
                if let Some(service) = service {
                    on_line(&format!("a Pki for the service {service} is admitted"));
                }
                return Ok(());
            }
            Err(error) if start.elapsed() > TIMEOUT => return Err(error),
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

async fn ask(
    client: &Client,
    namespace: &str,
    service: Option<&str>,
) -> Result<String, SelfTestError> {
    let pkis = Api::<Pki>::namespaced(client.clone(), namespace);
    let bad = create(&pkis, NAME, &[FORBIDDEN]).await?;
    let refusal = judge_bad(bad.as_ref().copied().map_err(AsRef::as_ref))?;
    if let Some(service) = service {
        let good = create(&pkis, service, &[]).await?;
        judge_good(service, good.as_ref().copied().map_err(AsRef::as_ref))?;
    }
    Ok(refusal)
}

/// Creates a Pki in a dry run. Returns the refusal, if there is one.
async fn create(
    pkis: &Api<Pki>,
    service: &str,
    dns_names: &[&str],
) -> Result<Result<(), Box<Status>>, SelfTestError> {
    let spec = PkiSpec {
        service_name: service.to_owned(),
        dns_names: dns_names.iter().map(ToString::to_string).collect(),
        ..PkiSpec::default()
    };
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match pkis.create(&params, &Pki::new(NAME, spec)).await {
        Ok(_) => Ok(Ok(())),
        // The caller has no permission, or the API server does not know Pkis.
        Err(kube::Error::Api(status)) if !matches!(status.code, 401 | 403 | 404) => Ok(Err(status)),
        Err(error) => Err(client::ClientError::of("create pkis", error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str) -> Status {
        Status::failure(message, "Invalid")
    }

    #[test]
    fn only_the_operators_own_refusal_is_good() {
        let ours =
            "Pki a/pki-operator-self-test: spec.serviceName: no PkiPolicy applies to namespace a";
        let said =
            format!("admission webhook \"validate.pkis.box.com\" denied the request: {ours}");
        assert_eq!(judge_bad(Err(&status(&said))).unwrap(), ours);
        for (said, sentence) in [
            (
                "failed calling webhook \"validate.pkis.box.com\": failed to call webhook: connection refused",
                "the API server cannot ask the operator: failed calling webhook",
            ),
            (
                "admission webhook \"validate.pkis.box.com\" denied the request: something else",
                "the answer is not the operator's: admission webhook",
            ),
            (
                "admission webhook \"theirs.example.com\" denied the request: pki-operator-self-test",
                "the answer is not the operator's: admission webhook \"theirs.example.com\" denied",
            ),
            (
                "exceeded quota",
                "the answer is not the operator's: exceeded quota",
            ),
        ] {
            let error = judge_bad(Err(&status(said))).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
        let error = judge_bad(Ok(())).unwrap_err().to_string();
        assert!(
            error.contains("kubectl get validatingwebhookconfigurations"),
            "{error}"
        );
    }

    #[test]
    fn a_good_pki_is_admitted() {
        judge_good("app1", Ok(())).unwrap();
        let refused = judge_good("app1", Err(&status("no")));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "a Pki for the service app1 was not admitted: no"
        );
    }
}
