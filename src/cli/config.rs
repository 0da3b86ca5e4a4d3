//! The command line. Every flag can be set by an environment variable too, and in a file.
//!
//! A flag has the first value that is given: on the command line, in the environment, in the file
//! that `--config` names. Errors name the flag, the variable or the key, before anything starts.

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

/// Certificates for application teams on Kubernetes, with errors they can read.
#[derive(Debug, Parser)]
#[command(name = "pki-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the operator's binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator: answer admission, issue and renew certificates.
    Run(Box<Config>),
    /// Print the custom resource definitions, or apply them.
    Crd {
        /// Bring those of the cluster to this version, and wait until they are in force. A newer
        /// one stays as it is.
        #[arg(long)]
        apply: bool,
    },
    /// Ask the API server, in dry-run, whether it refuses a bad Pki in the operator's words. `helm
    /// test` does.
    SelfTest {
        /// Where to ask.
        #[arg(long, env = "POD_NAMESPACE", default_value = "pki-operator")]
        namespace: String,
        /// A service for which a Pki is to be admitted there.
        #[arg(long, value_name = "SERVICE")]
        admits: Option<String>,
    },
}

/// How to run.
#[derive(Debug, Args)]
pub struct Config {
    /// A YAML file with further flags: a mapping of their names, without dashes, to their values; a
    /// list where a flag may be given several times. The command line and the environment go before
    /// it.
    #[arg(long, env = "PKI_OPERATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The operator's own namespace, which holds its CAs and its Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pki-operator", value_parser = values::namespace)]
    pub namespace: String,

    /// The namespaces to serve, separated by commas; may be given several times. Default: all. With
    /// a list, the operator reads and writes nothing in other namespaces but its own.
    #[arg(long, env = "PKI_OPERATOR_NAMESPACES", value_delimiter = ',', value_parser = values::namespace)]
    pub namespaces: Vec<String>,

    /// The name of this replica, unlike that of any other. Default: host name and process number.
    #[arg(long, env = "POD_NAME", value_parser = values::identity, default_value_t = default_identity(), hide_default_value = true)]
    pub identity: String,

    /// Where to answer admission, by HTTPS.
    #[arg(long, env = "PKI_OPERATOR_LISTEN", default_value = "0.0.0.0:8443", value_parser = values::socket)]
    pub listen: SocketAddr,

    /// Where to serve /livez, /readyz and /metrics, by plain HTTP.
    #[arg(long, env = "PKI_OPERATOR_METRICS_LISTEN", default_value = "0.0.0.0:8080",
        value_parser = values::socket)]
    pub metrics_listen: SocketAddr,

    /// How many connections to the webhook may be open at once; with more, those that say nothing
    /// make way.
    #[arg(long, env = "PKI_OPERATOR_MAX_CONNECTIONS", default_value = "512", 
        value_parser = values::whole("connections", 16..=65_536))]
    pub max_connections: u32,

    /// How many requests to the webhook may be under way at once; with more, the slowest makes way.
    #[arg(long, env = "PKI_OPERATOR_MAX_REQUESTS", default_value = "1000", 
        value_parser = values::whole("requests", 16..=65_536))]
    pub max_requests: u32,

    /// For how long the API server may not have confirmed the policies, namespaces and Pkis that
    /// this replica knows, in seconds; beyond that it is not ready. A watch is silent for a minute
    /// and begun anew after five, so more than 300 is wise.
    #[arg(long, env = "PKI_OPERATOR_MAX_WATCH_AGE_SECONDS", default_value = "600", value_parser = values::seconds(1))]
    pub max_watch_age_seconds: Duration,

    /// A name or address by which the API server reaches the webhook; may be given several times.
    /// Default: `pki-operator.<namespace>.svc`.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_HOST", value_delimiter = ',', value_parser = values::host)]
    pub webhook_host: Vec<String>,

    /// A file with CAs in PEM. A caller of the webhook needs a client certificate of one of them.
    /// Default: no caller needs one. The API server presents a certificate only if a file of the
    /// kind `AdmissionConfiguration` configures one.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CLIENT_CA", value_name = "FILE")]
    pub webhook_client_ca: Option<PathBuf>,

    /// A label selector that the operator's pods match, and no others in its namespace. The
    /// webhook's path gets its secret segment when all of them know such paths. Default: the
    /// operator runs in no pod, and the webhook configuration decides.
    #[arg(long, env = "PKI_OPERATOR_REPLICA_SELECTOR", value_name = "SELECTOR")]
    pub replica_selector: Option<String>,

    /// The name of the webhook configuration.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CONFIGURATION", default_value = "pki-operator",
        value_parser = values::object_name)]
    pub webhook_configuration: String,

    /// The Secret with the CA that signs certificates. A ConfigMap of the same name tells clients
    /// what to trust.
    #[arg(long, env = "PKI_OPERATOR_CA_SECRET", default_value = "pki-operator-ca",
        value_parser = values::object_name)]
    pub ca_secret: String,

    /// Who provides the CA that signs certificates: the operator makes it, or the platform team
    /// brings it.
    #[arg(long, env = "PKI_OPERATOR_CA", default_value = "make")]
    pub ca: CaSource,

    /// How long a CA that the operator makes is valid, in hours.
    #[arg(long, env = "PKI_OPERATOR_CA_LIFETIME_HOURS", default_value = "87600",
        value_parser = values::whole("hours", 1..=876_000))]
    pub ca_lifetime_hours: u32,

    /// How long each step takes at least when the CA is replaced, in seconds: the time in which
    /// everybody reloads what is mounted.
    #[arg(long, env = "PKI_OPERATOR_CA_STEP_SECONDS", default_value = "86400",
        value_parser = values::whole("seconds", 1..=31_536_000))]
    pub ca_step_seconds: u32,

    /// How long each phase of such a replacement waits for Secrets that cannot be written, in
    /// seconds. It goes on without them then.
    #[arg(long, env = "PKI_OPERATOR_CA_WAIT_SECONDS", default_value = "604800",
        value_parser = values::whole("seconds", 1..=31_536_000))]
    pub ca_wait_seconds: u32,

    /// How long the private key of a CA that was replaced is kept in the Secret, in seconds, after
    /// it is trusted no more. Only time in which a replica leads counts.
    #[arg(long, env = "PKI_OPERATOR_CA_KEY_RETENTION_SECONDS", default_value = "2592000",
        value_parser = values::whole("seconds", 1..=315_360_000))]
    pub ca_key_retention_seconds: u32,

    /// The `ConfigMap` with the CA bundle in each namespace labelled `box.com/trust-bundle=true`; a
    /// `ClusterTrustBundle` of this name has it too where the API server serves them.
    #[arg(long, env = "PKI_OPERATOR_TRUST_CONFIG_MAP", default_value = "pki-trust-bundle",
        value_parser = values::object_name)]
    pub trust_config_map: String,

    /// The Secret with the CA that signs the webhook's serving certificates.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CA_SECRET", default_value = "pki-operator-webhook-ca",
        value_parser = values::object_name)]
    pub webhook_ca_secret: String,

    /// How long a CA of the webhook is trusted after another took its place, in seconds. Default:
    /// as long as a serving certificate lives, so that none of the old CA is left.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_CA_OVERLAP_SECONDS", default_value = "86400",
        value_parser = values::whole("seconds", 15..=31_536_000))]
    pub webhook_ca_overlap_seconds: u32,

    /// The Lease that decides which replica reconciles.
    #[arg(long, env = "PKI_OPERATOR_LEASE", default_value = "pki-operator", value_parser = values::object_name)]
    pub lease: String,

    /// The cluster's DNS domain.
    #[arg(long, env = "PKI_OPERATOR_CLUSTER_DOMAIN", default_value = "cluster.local",
        value_parser = values::domain)]
    pub cluster_domain: String,

    /// The address by which pods reach the API server, which no certificate is for, whatever
    /// policies permit. Kubernetes sets the variable in every pod. The address in the URL of the
    /// kubeconfig is reserved as well. (Where it is a name, as in some managed clusters, policies
    /// alone decide about that.)
    #[arg(
        long,
        env = "KUBERNETES_SERVICE_HOST",
        default_value = "",
        hide_default_value = true
    )]
    pub api_server_address: String,

    /// Further addresses and ranges (CIDR) that no certificate is for, such as the network of
    /// Services; may be given several times.
    #[arg(long, env = "PKI_OPERATOR_RESERVED_ADDRESSES", value_delimiter = ',', value_parser = values::addresses)]
    pub reserved_addresses: Vec<IpNet>,

    /// How often a fault that lasts is said again in the Events on pods, in seconds.
    #[arg(long, env = "PKI_OPERATOR_REMINDER_SECONDS", default_value = "300", value_parser = values::seconds(1))]
    pub reminder_seconds: Duration,

    /// Whether to restart the Deployments, `StatefulSets` and `DaemonSets` that ask for it with the
    /// annotation `box.com/restart-on-renewal`, when a Secret of their pods was renewed.
    #[arg(long, env = "PKI_OPERATOR_RESTART_ON_RENEWAL", value_name = "BOOL", default_value_t = true,
        action = ArgAction::Set)]
    pub restart_on_renewal: bool,

    /// Within what time after a renewal these are restarted, each at a time of its own, in seconds;
    /// 0: at once.
    #[arg(long, env = "PKI_OPERATOR_RESTART_SPREAD_SECONDS", default_value = "600", value_parser = values::seconds(0))]
    pub restart_spread_seconds: Duration,

    /// Whether the pods that use a Secret are told, by a Normal Event, that its certificate was
    /// renewed.
    #[arg(long, env = "PKI_OPERATOR_RENEWAL_EVENTS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub renewal_events: bool,

    /// How long to go on serving after SIGTERM, while the cluster learns that this replica leaves,
    /// in seconds.
    #[arg(long, env = "PKI_OPERATOR_DRAIN_SECONDS", default_value = "5", value_parser = values::seconds(0))]
    pub drain_seconds: Duration,

    /// The OpenTelemetry collector that gets a span of each admission request and of each look at a
    /// Pki, by OTLP over HTTP: its base URL, for example <http://collector.monitoring.svc:4318>.
    /// Default: none. Further variables of OpenTelemetry, such as `OTEL_EXPORTER_OTLP_HEADERS`,
    /// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_TRACES_SAMPLER`, have their effect.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = values::endpoint)]
    pub otlp_endpoint: Option<Uri>,

    /// A file with the CAs, in PEM, that sign the collector's certificate. Default: those of the
    /// system, of which the image has none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,

    /// Which part of the traces goes to the collector, from 0 to 1. Of a request that the API
    /// server traces, the API server decides.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value = "1", value_parser = values::ratio)]
    pub otlp_sampling_ratio: f64,

    /// How log records are written.
    #[arg(long, env = "PKI_OPERATOR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which log records are written: a level, or a filter such as `info,pki_operator=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = values::log_filter)]
    pub log_level: String,
}

/// Who provides the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaSource {
    /// The operator.
    Make,
    /// The platform team.
    Bring,
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty());
    format!("{}-{}", host.unwrap_or("pki-operator"), std::process::id())
}

#[cfg(test)]
mod tests;
