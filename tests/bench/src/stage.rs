//! A cluster with the chart, and an operator whose processor time and memory are read.

use kube::Client;
use pki_cluster::install::{self, Install, Operator, Replica};
use pki_cluster::testing::{self, AuditLog, Request};
use pki_cluster::{Cluster, Options, Usage};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The namespace in which everything happens.
pub(crate) const NAMESPACE: &str = "bench";

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) objects: usize,
    operator: Option<Operator>,
    audit: AuditLog,
    binary: PathBuf,
    kubeconfig: PathBuf,
    webhook: SocketAddr,
    starts: usize,
}

impl Stage {
    /// Starts a cluster, and installs the chart.
    pub(crate) async fn start(binary: &Path, objects: usize) -> anyhow::Result<Self> {
        let cluster = Cluster::start(Options::default())?;
        let kubeconfig = cluster.dir().join("operator.kubeconfig");
        let stage = Self {
            client: testing::client(cluster.kubeconfig()).await?,
            audit: AuditLog::of(&cluster),
            objects,
            operator: None,
            binary: binary.to_owned(),
            webhook: install::free_address()?,
            starts: 0,
            kubeconfig,
            cluster,
        };
        stage.allow(&["app1", "app2"])?;
        install::service_account_kubeconfig(|| stage.cluster.kubectl(), &stage.kubeconfig)?;
        stage.kubectl(&["create", "namespace", NAMESPACE])?;
        Ok(stage)
    }

    /// Installs the chart, or changes which service names are allowed.
    pub(crate) fn allow(&self, names: &[&str]) -> anyhow::Result<()> {
        let webhook = self.webhook.to_string();
        let install = Install {
            allowed_names: names,
            webhook: &webhook,
            values: &[],
        };
        install.run(self.cluster.helm()?).map(drop)
    }

    /// Removes the webhooks, until the chart is installed again.
    pub(crate) async fn remove_webhooks(&self) -> anyhow::Result<()> {
        let webhooks = "validatingwebhookconfiguration";
        self.kubectl(&["delete", webhooks, "pki-operator"])?;
        // Until the API server has heard of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        testing::kubectl(&self.cluster, arguments)
    }

    /// Starts the operator, and waits until it is ready.
    pub(crate) fn start_operator(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let replica = Replica {
            binary: &self.binary,
            kubeconfig: &self.kubeconfig,
            identity: &format!("operator-{}", self.starts),
            webhook: self.webhook,
            host: "127.0.0.1",
            flags: &[],
        };
        self.operator = Some(replica.start(|name, command| self.cluster.spawn(name, command))?);
        Ok(())
    }

    /// Ends the operator in an orderly way, so that the next one may lead at once.
    pub(crate) fn stop_operator(&mut self) -> anyhow::Result<()> {
        if let Some(operator) = self.operator.take() {
            operator.stop()?;
        }
        Ok(())
    }

    pub(crate) fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("the operator was started")
    }

    /// Where the webhook answers, as the API server reads it.
    pub(crate) fn webhook_url(&self) -> anyhow::Result<String> {
        let url = "--output=jsonpath={.webhooks[0].clientConfig.url}";
        self.kubectl(&["get", "validatingwebhookconfiguration", "pki-operator", url])
    }

    /// The operator's page of metrics, which it takes some of its processor to make.
    pub(crate) fn metrics(&self) -> anyhow::Result<String> {
        let (_, page) = self.operator().get("/metrics")?;
        Ok(page)
    }

    /// What the operator has taken up so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.operator().process.usage()
    }

    /// How many requests that write the operator has sent about this namespace, Events aside, as
    /// the audit log of the API server has it.
    pub(crate) fn writes(&self) -> usize {
        let writes = |request: &Request| {
            let is_event = request.what.ends_with(" events");
            request.is_write() && request.namespace == NAMESPACE && !is_event
        };
        self.audit.requests(writes).len()
    }
}
