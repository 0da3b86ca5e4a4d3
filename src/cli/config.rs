//! The command line. Every flag can be set by an environment variable too, and in a file.
//!
//! The command line takes precedence over the environment, and the environment over the file of
//! `--config`. Errors name the flag, the variable or the key, before anything starts.
#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are what --help prints"
)]

use crate::observability::log::LogFormat;
use axum::http::Uri;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use values::addresses;

mod check;
mod error;
mod file;
mod read;
mod settings;
mod values;

pub use error::{ConfigError, Conflict, FileFault, FlagRefusal};

const EXAMPLES: &str = "\
Examples:
  pki-operator crd > pkis.yaml                 # print the CRDs
  pki-operator run --config=config.yaml        # run the operator

pki-operator COMMAND --help lists the flags of each command.";

const RUN_EXAMPLES: &str = "\
Each flag can also be set by its environment variable, or in the file of --config.

Examples:
  pki-operator run --namespaces=team-a,team-b --log-format=json
  pki-operator run --ca=bring --reserved-addresses=10.96.0.0/12,fd00:10:96::/112";

const CRD_EXAMPLES: &str = "\
Examples:
  pki-operator crd > pkis.yaml
  pki-operator crd --apply";

const SELF_TEST_EXAMPLES: &str = "\
Example:
  pki-operator self-test --namespace=team-a --admits=app1";

/// Certificates for application teams on Kubernetes, with errors they can read.
#[derive(Debug, Parser)]
#[command(name = "pki-operator", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of the operator's binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator: answer admission requests, issue and renew certificates.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Config>),
    /// Print the custom resource definitions (CRDs), or apply them.
    #[command(after_help = CRD_EXAMPLES)]
    Crd {
        /// Update the CRDs of the cluster to this version, and wait until the API server serves
        /// them. Leaves newer CRDs alone. Without this flag: print them as YAML.
        #[arg(long)]
        apply: bool,
    },
    /// Test the installation: create a bad Pki in a dry run, and check that the operator refuses
    /// it. `helm test` runs this.
    #[command(after_help = SELF_TEST_EXAMPLES)]
    SelfTest {
        /// Namespace of the dry run.
        #[arg(long, env = "POD_NAMESPACE", default_value = "pki-operator")]
        namespace: String,
        /// Name of a service for which the namespace may have a Pki; the test then also creates
        /// that Pki in a dry run. Default: none.
        #[arg(long, value_name = "SERVICE")]
        admits: Option<String>,
    },
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct Config {
    /// Read more flags from this YAML file: a mapping of names without dashes to values, for
    /// example `drain-seconds: 5`. Write a list for a flag that may be repeated. The command line
    /// and the environment take precedence. Default: no file.
    #[arg(long, env = "PKI_OPERATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Namespace of the operator itself, which holds its CAs and its Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pki-operator", value_parser = values::namespace)]
    pub namespace: String,

    /// Serve these namespaces only, separated by commas. May be repeated. With a list, the operator
    /// reads and writes nothing in other namespaces, except in its own. Default: all namespaces.
    #[arg(long, env = "PKI_OPERATOR_NAMESPACES", value_delimiter = ',', value_parser = values::namespace)]
    pub namespaces: Vec<String>,

    /// Name of this replica, different from every other. Default: host name and process number.
    #[arg(long, env = "POD_NAME", value_parser = values::identity, default_value_t = default_identity(), hide_default_value = true)]
    pub identity: String,

    /// Address and port for admission requests (HTTPS).
    #[arg(long, env = "PKI_OPERATOR_LISTEN", default_value = "0.0.0.0:8443", value_parser = values::socket)]
    pub listen: SocketAddr,

    /// Address and port for /livez, /readyz and /metrics (plain HTTP).
    #[arg(long, env = "PKI_OPERATOR_METRICS_LISTEN", default_value = "0.0.0.0:8080",
        value_parser = values::socket)]
    pub metrics_listen: SocketAddr,

    /// Maximum number of open connections to the webhook. Beyond it, the operator first closes
    /// connections without an answered request.
    #[arg(long, env = "PKI_OPERATOR_MAX_CONNECTIONS", default_value = "512", 
        value_parser = values::whole("connections", 16..=65_536))]
    pub max_connections: u32,

    /// Maximum number of concurrent requests to the webhook. Beyond it, the client with the most
    /// requests loses its oldest one.
    #[arg(long, env = "PKI_OPERATOR_MAX_REQUESTS", default_value = "1000", 
        value_parser = values::whole("requests", 16..=65_536))]
    pub max_requests: u32,

    /// Maximum age of this replica's view of policies, namespaces and Pkis, in seconds: the time
    /// since the API server confirmed it. Beyond it, the replica is not ready. Use more than 300: a
    /// watch may be silent for a minute, and restarts after five.
    #[arg(long, env = "PKI_OPERATOR_MAX_WATCH_AGE_SECONDS", default_value = "600", value_parser = values::seconds(1))]
    pub max_watch_age_seconds: Duration,

    /// Host name or IP address by which the API server reaches the webhook. May be repeated.
    /// Default: `pki-operator.<namespace>.svc`.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_HOST", value_delimiter = ',', value_parser = values::host)]
    pub webhook_host: Vec<String>,

    /// Require a client certificate from callers of the webhook, signed by a CA in this PEM file.
    /// The API server presents one only if its AdmissionConfiguration file configures it.
    /// Default: callers need no certificate.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CLIENT_CA", value_name = "FILE")]
    pub webhook_client_ca: Option<PathBuf>,

    /// Label selector that matches exactly the operator's pods in its namespace. The webhook's path
    /// gets its secret segment when all these pods support it. Default: the operator runs outside
    /// the cluster, and the webhook configuration decides.
    #[arg(long, env = "PKI_OPERATOR_REPLICA_SELECTOR", value_name = "SELECTOR")]
    pub replica_selector: Option<String>,

    /// Name of the ValidatingWebhookConfiguration.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CONFIGURATION", default_value = "pki-operator",
        value_parser = values::object_name)]
    pub webhook_configuration: String,

    /// Name of the Secret with the CA that signs certificates. A ConfigMap of the same name records
    /// which CA signs, and which CAs are trusted.
    #[arg(long, env = "PKI_OPERATOR_CA_SECRET", default_value = "pki-operator-ca",
        value_parser = values::object_name)]
    pub ca_secret: String,

    /// Source of the CA that signs certificates.
    #[arg(long, env = "PKI_OPERATOR_CA", default_value = "make")]
    pub ca: CaSource,

    /// Lifetime of a CA that the operator creates, in hours.
    #[arg(long, env = "PKI_OPERATOR_CA_LIFETIME_HOURS", default_value = "87600",
        value_parser = values::whole("hours", 1..=876_000))]
    pub ca_lifetime_hours: u32,

    /// Minimum time of each step of a CA rotation, in seconds. Servers and clients must reload
    /// their mounted files within it.
    #[arg(long, env = "PKI_OPERATOR_CA_STEP_SECONDS", default_value = "86400",
        value_parser = values::whole("seconds", 1..=31_536_000))]
    pub ca_step_seconds: u32,

    /// Maximum time that each phase of a CA rotation waits for Secrets that cannot be written, in
    /// seconds. The rotation then goes on without them.
    #[arg(long, env = "PKI_OPERATOR_CA_WAIT_SECONDS", default_value = "604800",
        value_parser = values::whole("seconds", 1..=31_536_000))]
    pub ca_wait_seconds: u32,

    /// Time that the Secret keeps the private key of a replaced CA after its root is withdrawn, in
    /// seconds. Only time with a leader counts.
    #[arg(long, env = "PKI_OPERATOR_CA_KEY_RETENTION_SECONDS", default_value = "2592000",
        value_parser = values::whole("seconds", 1..=315_360_000))]
    pub ca_key_retention_seconds: u32,

    /// Name of the ConfigMap with the CA bundle, in namespaces labelled
    /// `box.com/trust-bundle=true`. If the API server serves ClusterTrustBundles, one of this name
    /// has it too.
    #[arg(long, env = "PKI_OPERATOR_TRUST_CONFIG_MAP", default_value = "pki-trust-bundle",
        value_parser = values::object_name)]
    pub trust_config_map: String,

    /// Name of the Secret with the CA that signs the webhook's serving certificates.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CA_SECRET", default_value = "pki-operator-webhook-ca",
        value_parser = values::object_name)]
    pub webhook_ca_secret: String,

    /// Time that a replaced CA of the webhook stays trusted, in seconds. The default is the
    /// lifetime of a serving certificate, so that the old CA has none left.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CA_OVERLAP_SECONDS", default_value = "86400",
        value_parser = values::whole("seconds", 15..=31_536_000))]
    pub webhook_ca_overlap_seconds: u32,

    /// Name of the Lease that decides which replica reconciles.
    #[arg(long, env = "PKI_OPERATOR_LEASE", default_value = "pki-operator", value_parser = values::object_name)]
    pub lease: String,

    /// DNS domain of the cluster.
    #[arg(long, env = "PKI_OPERATOR_CLUSTER_DOMAIN", default_value = "cluster.local",
        value_parser = values::domain)]
    pub cluster_domain: String,

    /// Cluster address of the API server, which no policy can permit in a certificate. Kubernetes
    /// sets the variable in every pod. The address in the kubeconfig's URL is reserved too. If the
    /// value is a name, as in some managed clusters, policies alone decide. Default: none.
    #[arg(
        long,
        env = "KUBERNETES_SERVICE_HOST",
        default_value = "",
        hide_default_value = true
    )]
    pub api_server_address: String,

    /// More IP addresses and ranges (CIDR) that no policy can permit, for example the network of
    /// Services, 10.96.0.0/12. Separated by commas; may be repeated. Default: none.
    #[arg(long, env = "PKI_OPERATOR_RESERVED_ADDRESSES", value_delimiter = ',', value_parser = values::addresses)]
    pub reserved_addresses: Vec<IpNet>,

    /// Interval at which Events on pods repeat a fault that persists, in seconds.
    #[arg(long, env = "PKI_OPERATOR_REMINDER_SECONDS", default_value = "300", value_parser = values::seconds(1))]
    pub reminder_seconds: Duration,

    /// Write Secrets. Without, the operator reads and writes no Secret outside of its own
    /// namespace, signs pod certificates only, and refuses a Pki without `delivery: Pod`.
    #[arg(long, env = "PKI_OPERATOR_SECRETS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub secrets: bool,

    /// Restart workloads with the annotation `box.com/restart-on-renewal` after a renewal of a
    /// Secret that their pods use. Workloads are Deployments, StatefulSets and DaemonSets.
    #[arg(long, env = "PKI_OPERATOR_RESTART_ON_RENEWAL", value_name = "BOOL", default_value_t = true,
        action = ArgAction::Set)]
    pub restart_on_renewal: bool,

    /// Time after a renewal over which restarts are spread, in seconds. 0: restart at once.
    #[arg(long, env = "PKI_OPERATOR_RESTART_SPREAD_SECONDS", default_value = "600", value_parser = values::seconds(0))]
    pub restart_spread_seconds: Duration,

    /// Publish a Normal Event on the pods that use a Secret when its certificate is renewed.
    #[arg(long, env = "PKI_OPERATOR_RENEWAL_EVENTS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub renewal_events: bool,

    /// Time to serve after SIGTERM, while the cluster removes this replica from the Service, in
    /// seconds.
    #[arg(long, env = "PKI_OPERATOR_DRAIN_SECONDS", default_value = "5", value_parser = values::seconds(0))]
    pub drain_seconds: Duration,

    /// Export traces to this OpenTelemetry collector (OTLP over HTTP): its base URL, for example
    /// <http://collector.monitoring.svc:4318>. Each admission request and each reconcile of a Pki
    /// is a span. The variables `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and
    /// `OTEL_TRACES_SAMPLER` apply too. Default: no traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = values::endpoint)]
    pub otlp_endpoint: Option<Uri>,

    /// PEM file with the CAs that sign the collector's certificate. Default: the CAs of the system;
    /// the image contains none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,

    /// Ratio of traces to export, from 0 to 1. For a request that the API server traces, the API
    /// server decides.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value = "1", value_parser = values::ratio)]
    pub otlp_sampling_ratio: f64,

    /// Format of log records.
    #[arg(long, env = "PKI_OPERATOR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Minimum level of log records (error, warn, info, debug, trace, off), or a filter such as
    /// `info,pki_operator=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = values::log_filter)]
    pub log_level: String,
}

/// Source of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaSource {
    /// The operator creates the CA, and replaces it before it expires.
    Make,
    /// The platform team writes the CA into the Secret.
    Bring,
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty());
    format!("{}-{}", host.unwrap_or("pki-operator"), std::process::id())
}

#[cfg(test)]
mod tests;
