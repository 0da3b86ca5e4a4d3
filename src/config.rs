//! The command line. Every flag can be set by an environment variable too.

use crate::ca::keeper;
use crate::index::Key;
use crate::policy::{self, range};
use crate::{reconcile, restarts, trust};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;
use std::net::SocketAddr;
use std::time::Duration;

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
        /// Bring those of the cluster to this version, and wait until they are in force. A newer one stays as it is.
        #[arg(long)]
        apply: bool,
    },
}

/// How to run.
#[derive(Debug, Args)]
pub struct Config {
    /// The operator's own namespace, which holds its CAs and its Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pki-operator")]
    pub namespace: String,

    /// The name of this replica, unlike that of any other. Default: host name and process number.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity(), hide_default_value = true)]
    pub identity: String,

    /// Where to answer admission, by HTTPS.
    #[arg(long, env = "PKI_OPERATOR_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,

    /// Where to serve /livez, /readyz and /metrics, by plain HTTP.
    #[arg(
        long,
        env = "PKI_OPERATOR_METRICS_LISTEN",
        default_value = "0.0.0.0:8080"
    )]
    pub metrics_listen: SocketAddr,

    /// A name or address by which the API server reaches the webhook; may be given several times. Default:
    /// `pki-operator.<namespace>.svc`.
    #[arg(long, env = "PKI_OPERATOR_WEBHOOK_HOST", value_delimiter = ',')]
    pub webhook_host: Vec<String>,

    /// The name that both webhook configurations have, the validating and the mutating one.
    #[arg(
        long,
        env = "PKI_OPERATOR_WEBHOOK_CONFIGURATION",
        default_value = "pki-operator"
    )]
    pub webhook_configuration: String,

    /// The Secret with the CA that signs certificates. A ConfigMap of the same name tells clients what to trust.
    #[arg(
        long,
        env = "PKI_OPERATOR_CA_SECRET",
        default_value = "pki-operator-ca"
    )]
    pub ca_secret: String,

    /// Who provides the CA that signs certificates: the operator makes it, or the platform team brings it.
    #[arg(long, env = "PKI_OPERATOR_CA", default_value = "make")]
    pub ca: CaSource,

    /// How long a CA that the operator makes is valid, in hours.
    #[arg(long, env = "PKI_OPERATOR_CA_LIFETIME_HOURS", default_value = "87600",
        value_parser = clap::value_parser!(u32).range(1..=876_000))]
    pub ca_lifetime_hours: u32,

    /// How long each step takes at least when the CA is replaced, in seconds: the time in which everybody reloads what is
    /// mounted.
    #[arg(long, env = "PKI_OPERATOR_CA_STEP_SECONDS", default_value = "86400",
        value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    pub ca_step_seconds: u32,

    /// The `ConfigMap` with the CA bundle in each namespace labelled `box.com/trust-bundle=true`; a `ClusterTrustBundle` of this
    /// name has it too where the API server serves them.
    #[arg(
        long,
        env = "PKI_OPERATOR_TRUST_CONFIG_MAP",
        default_value = "pki-trust-bundle"
    )]
    pub trust_config_map: String,

    /// The Secret with the CA that signs the webhook's serving certificates.
    #[arg(
        long,
        env = "PKI_OPERATOR_WEBHOOK_CA_SECRET",
        default_value = "pki-operator-webhook-ca"
    )]
    pub webhook_ca_secret: String,

    /// The Lease that decides which replica reconciles.
    #[arg(long, env = "PKI_OPERATOR_LEASE", default_value = "pki-operator")]
    pub lease: String,

    /// The cluster's DNS domain.
    #[arg(
        long,
        env = "PKI_OPERATOR_CLUSTER_DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,

    /// The address by which pods reach the API server, which no certificate is for, whatever policies permit. Kubernetes sets
    /// the variable in every pod. (Where it is a name, as in some managed clusters, policies alone decide about that.)
    #[arg(
        long,
        env = "KUBERNETES_SERVICE_HOST",
        default_value = "",
        hide_default_value = true
    )]
    pub api_server_address: String,

    /// Further addresses and ranges (CIDR) that no certificate is for, such as the network of Services; may be given several
    /// times.
    #[arg(long, env = "PKI_OPERATOR_RESERVED_ADDRESSES", value_delimiter = ',', value_parser = addresses)]
    pub reserved_addresses: Vec<IpNet>,

    /// How often a fault that lasts is said again in the Events on pods, in seconds.
    #[arg(long, env = "PKI_OPERATOR_REMINDER_SECONDS", default_value = "300", value_parser = seconds(1))]
    pub reminder_seconds: Duration,

    /// Whether to restart the Deployments, `StatefulSets` and `DaemonSets` that ask for it with the annotation
    /// `box.com/restart-on-renewal`, when a Secret of their pods was renewed.
    #[arg(long, env = "PKI_OPERATOR_RESTART_ON_RENEWAL", value_name = "BOOL", default_value_t = true,
        action = ArgAction::Set)]
    pub restart_on_renewal: bool,

    /// Within what time after a renewal these are restarted, each at a time of its own, in seconds; 0: at once.
    #[arg(long, env = "PKI_OPERATOR_RESTART_SPREAD_SECONDS", default_value = "600", value_parser = seconds(0))]
    pub restart_spread_seconds: Duration,

    /// Whether the pods that use a Secret are told, by a Normal Event, that its certificate was renewed.
    #[arg(long, env = "PKI_OPERATOR_RENEWAL_EVENTS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub renewal_events: bool,

    /// How long to go on serving after SIGTERM, while the cluster learns that this replica leaves, in seconds.
    #[arg(long, env = "PKI_OPERATOR_DRAIN_SECONDS", default_value = "5", value_parser = seconds(0))]
    pub drain_seconds: Duration,

    /// How log records are written.
    #[arg(long, env = "PKI_OPERATOR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which log records are written: a level, or a filter such as `info,pki_operator=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
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

/// How log records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// How the CA is kept.
    pub fn ca(&self) -> keeper::Settings {
        keeper::Settings {
            secret: Key::new(self.namespace.clone(), self.ca_secret.clone()),
            is_brought: self.ca == CaSource::Bring,
            lifetime: SignedDuration::from_hours(self.ca_lifetime_hours.into()),
            step: SignedDuration::from_secs(self.ca_step_seconds.into()),
        }
    }

    /// How clients are told whom to trust.
    pub fn trust(&self) -> trust::Settings {
        trust::Settings {
            name: self.trust_config_map.clone(),
            reminder: self.reminder_seconds,
        }
    }

    /// What is true whatever policies say.
    pub fn rules(&self) -> policy::Settings {
        let own = range(&self.api_server_address).into_iter();
        policy::Settings {
            cluster_domain: self.cluster_domain.trim_matches('.').to_ascii_lowercase(),
            namespace: self.namespace.clone(),
            reserved_secrets: vec![self.ca_secret.clone(), self.webhook_ca_secret.clone()],
            reserved_addresses: own.chain(self.reserved_addresses.clone()).collect(),
        }
    }

    /// How people are told what becomes of a Pki.
    pub fn reconcile(&self) -> reconcile::Settings {
        reconcile::Settings {
            reminder: self.reminder_seconds,
            tells_renewals: self.renewal_events,
        }
    }

    /// How workloads are restarted, if they are.
    pub fn restarts(&self) -> Option<restarts::Settings> {
        let window = self.restart_spread_seconds;
        self.restart_on_renewal.then(|| restarts::Settings {
            window: SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX),
            reminder: self.reminder_seconds,
        })
    }

    /// The hosts that the serving certificate is for.
    pub fn webhook_hosts(&self) -> Vec<String> {
        if self.webhook_host.is_empty() {
            vec![format!("pki-operator.{}.svc", self.namespace)]
        } else {
            self.webhook_host.clone()
        }
    }
}

pub(crate) fn addresses(text: &str) -> Result<IpNet, String> {
    range(text).ok_or_else(|| "write an IP address, or a range such as 10.96.0.0/12".into())
}

fn seconds(
    least: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(seconds) if (least..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "write a whole number of seconds from {least} to 86400"
        )),
    }
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.unwrap_or_default();
    let host = if host.trim().is_empty() {
        "pki-operator"
    } else {
        host.trim()
    };
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_flag_that_has_it() {
        for (flag, value) in [
            ("--reminder-seconds", "0"),
            ("--drain-seconds", "soon"),
            ("--listen", "8443"),
            ("--ca", "buy"),
            ("--ca-lifetime-hours", "0"),
            ("--ca-lifetime-hours", "876001"),
            ("--ca-step-seconds", "0"),
            ("--ca-step-seconds", "31536001"),
            ("--restart-on-renewal", "maybe"),
            ("--restart-spread-seconds", "86401"),
            ("--reserved-addresses", "10.96.0.0/33"),
        ] {
            let error = Cli::try_parse_from(["pki-operator", "run", flag, value])
                .unwrap_err()
                .to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    fn config(flags: &[&str]) -> Config {
        let cli = Cli::try_parse_from([&["pki-operator", "run"], flags].concat()).unwrap();
        let Command::Run(config) = cli.command else {
            panic!("{cli:?}")
        };
        *config
    }

    #[test]
    fn the_ca_is_made_for_ten_years_and_replaced_in_steps_of_a_day() {
        let ca = config(&[]).ca();
        assert_eq!(ca.secret, Key::new("pki-operator", "pki-operator-ca"));
        assert!(!ca.is_brought);
        assert_eq!(ca.lifetime, SignedDuration::from_hours(87_600));
        assert_eq!(ca.step, SignedDuration::from_hours(24));

        let flags = ["--ca", "bring", "--namespace", "pki", "--ca-secret", "ca"];
        let ca = config(&flags).ca();
        assert_eq!((ca.secret, ca.is_brought), (Key::new("pki", "ca"), true));
        let ca = config(&["--ca-lifetime-hours", "1", "--ca-step-seconds", "2"]).ca();
        assert_eq!((ca.lifetime.as_secs(), ca.step.as_secs()), (3600, 2));
    }

    #[test]
    fn the_address_of_the_api_server_is_reserved_beside_others_where_it_is_one() {
        let reserved = |flags: &[&str]| {
            let ranges = config(flags).rules().reserved_addresses;
            ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let others = [
            "--reserved-addresses=10.96.0.0/12,fd00::1",
            "--reserved-addresses=10.1.2.3",
        ];
        let others_read = ["10.96.0.0/12", "fd00::1/128", "10.1.2.3/32"];
        let with = |host| reserved(&[&["--api-server-address", host], &others[..]].concat());
        assert_eq!(
            with("10.96.0.1"),
            [&["10.96.0.1/32"], &others_read[..]].concat()
        );
        assert_eq!(with("api.example.com"), others_read);
        assert_eq!(reserved(&["--api-server-address=fd00::1"]), ["fd00::1/128"]);
    }

    #[test]
    fn workloads_are_restarted_within_ten_minutes_unless_that_is_switched_off() {
        let window = |flags: &[&str]| config(flags).restarts().map(|it| it.window.as_secs());
        assert_eq!(window(&[]), Some(600));
        assert_eq!(window(&["--restart-spread-seconds=0"]), Some(0));
        assert_eq!(window(&["--restart-on-renewal=true"]), Some(600));
        assert_eq!(window(&["--restart-on-renewal=false"]), None);
    }
}
