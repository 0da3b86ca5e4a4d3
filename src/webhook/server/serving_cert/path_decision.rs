//! Decides whether the webhook's path has a secret segment.

use super::Replicas;
use super::configuration::Configuration;
use super::path::SECRET_PATH;
use kube::Client;

/// The path that the webhook configuration is to have.
pub(super) enum PathDecision {
    /// With a segment.
    Secret,
    /// Without a segment, for this reason.
    Plain(String),
    /// As it is, for this reason.
    Keep(String),
}

impl PathDecision {
    /// Decides. `has_segment`: the Secret of the webhook's CA is usable and has a segment.
    pub(super) async fn make(
        client: &Client,
        configuration: &Configuration,
        has_segment: bool,
        replicas: Option<&Replicas>,
    ) -> Self {
        if !has_segment {
            let why = "the Secret of the webhook's CA cannot be used, or has no segment yet";
            return Self::Keep(why.to_owned());
        }
        if !configuration.asks_for_secret_path() {
            return Self::Plain(format!(
                "the webhook configuration has no annotation {SECRET_PATH}: \"true\": the chart is of an older version, or \
                 its value webhook.secretPath is false"
            ));
        }
        let Some(replicas) = replicas else {
            return Self::Secret;
        };
        match replicas.older(client).await {
            Ok(None) => Self::Secret,
            Ok(Some(pod)) => Self::Plain(format!(
                "pod {pod} has no annotation {SECRET_PATH}: \"true\": it is of an older version, and answers only at the plain path"
            )),
            Err(error) => Self::Keep(format!("cannot list the operator's pods: {error}")),
        }
    }

    /// Logs the reason if it is another than the one that was `logged` last.
    pub(super) fn log_change(&self, logged: &mut Option<String>) {
        let why = match self {
            Self::Secret => None,
            Self::Plain(why) | Self::Keep(why) => Some(why.clone()),
        };
        if why != *logged {
            if let Some(why) = &why {
                tracing::warn!(why, "the webhook's path has no secret segment");
            } else {
                tracing::info!("the webhook's path has a secret segment");
            }
            *logged = why;
        }
    }
}
