//! Whether the secret segment may be put into the webhook's path.

use super::Replicas;
use super::configuration::Configuration;
use super::path::SECRET_PATH;
use kube::Client;

/// Whether the path is to have no secret segment.
pub(super) enum Withheld {
    /// The path is to have a segment.
    Not,
    /// The path is to have none, for this reason.
    Unwanted(String),
    /// The path stays as it is, for this reason.
    Undecided(String),
}

impl Withheld {
    /// Looks for a reason. `has_segment` is whether the Secret of the webhook's CA can be used and
    /// has a segment.
    pub(super) async fn find(
        client: &Client,
        configuration: &Configuration,
        has_segment: bool,
        replicas: Option<&Replicas>,
    ) -> Self {
        if !has_segment {
            let why = "the Secret of the webhook's CA cannot be used, or has no segment yet";
            return Self::Undecided(why.to_owned());
        }
        if !configuration.asks_for_secret_path() {
            return Self::Unwanted(format!(
                "the webhook configuration has no annotation {SECRET_PATH}: \"true\": the chart is of an older version, or \
                 its value webhook.secretPath is false"
            ));
        }
        let Some(replicas) = replicas else {
            return Self::Not;
        };
        match replicas.older(client).await {
            Ok(None) => Self::Not,
            Ok(Some(pod)) => Self::Unwanted(format!(
                "pod {pod} has no annotation {SECRET_PATH}: \"true\": it is of an older version, and answers at the plain path alone"
            )),
            Err(error) => Self::Undecided(format!("cannot list the operator's pods: {error}")),
        }
    }

    /// Logs the reason if it is another than the one that was `logged` last.
    pub(super) fn log_news(&self, logged: &mut Option<String>) {
        let why = match self {
            Self::Not => None,
            Self::Unwanted(why) | Self::Undecided(why) => Some(why.clone()),
        };
        if why == *logged {
            return;
        }
        if let Some(why) = &why {
            tracing::warn!(why, "the webhook's path has no secret segment");
        } else {
            tracing::info!("the webhook's path has a secret segment");
        }
        *logged = why;
    }
}
