//! Connects to the cluster by kubeconfig, as kubectl does.

use crate::api::{Labels, PkiPolicy, StoredPolicy};
use crate::util::text;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

/// Number of objects that the API server sends at once.
const PAGE: u32 = 500;
const CONNECT: Duration = Duration::from_secs(10);

/// Selects a cluster and a namespace.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Access {
    /// Kubeconfig file to use. Default: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use. Default: its current context.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// Namespace to use. Default: that of the context; for check without a cluster, "default".
    #[arg(
        short,
        long,
        global = true,
        value_name = "NS",
        help_heading = "Cluster"
    )]
    pub namespace: Option<String>,
}

/// A cluster that answers requests.
#[derive(Clone)]
pub struct Cluster {
    /// The client of its API.
    pub client: Client,
    /// The namespace that was named, or that of the context.
    pub namespace: String,
}

/// The cluster does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No kubeconfig.
    #[error("cannot find a cluster: {0}")]
    Kubeconfig(String),
    /// The permission is missing: an action, as in `list pkipolicies`, and the API server's
    /// message.
    #[error("you may not {0} here: {1}")]
    Forbidden(String, String),
    /// The object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The action failed, most likely because the API server cannot be reached, and its error.
    #[error("cannot {0}: {1}")]
    Failed(String, String),
}

impl ClientError {
    /// The permission for an action is missing.
    pub(crate) fn forbidden(action: String, message: &str) -> Self {
        Self::Forbidden(action, text::printable(message))
    }

    /// An action failed.
    pub(crate) fn failed(action: String, cause: &str) -> Self {
        Self::Failed(action, text::printable(cause))
    }

    pub(crate) fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(answer) => match answer.code {
                401 | 403 => Self::forbidden(what, &answer.message),
                404 => Self::NotFound(text::sentence(&answer.message)),
                _ => Self::failed(what, &answer.message),
            },
            other => Self::failed(what, &with_causes(&other)),
        }
    }

    /// Whether it is a matter of permission.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(..))
    }
}

/// Formats an error with its causes, which say why. A credential plugin is not quoted: its
/// arguments and its output may be secret.
fn with_causes(error: &dyn std::error::Error) -> String {
    let chain = text::error_chain(error);
    if chain.contains("auth exec") || chain.contains("exec auth") {
        return "the credential plugin of the kubeconfig failed: run `kubectl get pkis` to see why"
            .into();
    }
    chain
}

impl Access {
    /// Reads the kubeconfig. Nothing is asked yet.
    pub async fn connect(&self) -> Result<Cluster, ClientError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        // People wait, and would wait for minutes.
        config.default_retry = false;
        // An empty one is none: `-n "$NAMESPACE"` where that is not set.
        let namespace = self.namespace.clone().filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| ClientError::Kubeconfig(with_causes(&error)))?;
        Ok(Cluster { client, namespace })
    }

    async fn config(&self) -> Result<Config, ClientError> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &self.kubeconfig {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
                Err(error) => Err(error),
            },
            None if self.context.is_some() => Config::from_kubeconfig(&options).await,
            None => {
                let config = Config::infer().await;
                return config.map_err(|error| ClientError::Kubeconfig(with_causes(&error)));
            }
        };
        config.map_err(|error| ClientError::Kubeconfig(with_causes(&error)))
    }
}

impl Cluster {
    /// Objects of the namespace.
    pub fn namespaced<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// All objects of a namespace, or of all, page by page.
    pub async fn list<K>(
        &self,
        plural: &str,
        namespace: Option<&str>,
        fields: &str,
    ) -> Result<Vec<K>, ClientError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let client = self.client.clone();
        let api = namespace.map_or_else(
            || Api::<K>::all(client.clone()),
            |name| Api::namespaced(client.clone(), name),
        );
        let mut params = ListParams::default().fields(fields).limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&params).await;
            let page = page.map_err(|error| ClientError::of(format!("list {plural}"), error))?;
            let next = page.metadata.continue_.clone();
            found.extend(page);
            match next.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// The policies. What is stored under another schema, and cannot be read, is none.
    pub async fn policies(&self) -> Result<Vec<PkiPolicy>, ClientError> {
        let policies = Api::<StoredPolicy>::all(self.client.clone());
        let listed = policies.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| ClientError::of("list pkipolicies", error))?;
        Ok(listed
            .into_iter()
            .filter_map(|stored| stored.0.ok())
            .collect())
    }

    /// The labels of a namespace.
    pub async fn labels(&self, namespace: &str) -> Result<Labels, ClientError> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let found = namespaces.get(namespace).await;
        let found = found.map_err(|error| ClientError::of("get namespaces", error))?;
        Ok(found.labels().clone())
    }
}
