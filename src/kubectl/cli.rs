//! The command line of `kubectl pki`.
#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are what --help prints"
)]

use super::cluster::Access;
use super::output::Format;
use clap::{Args, Parser, Subcommand, ValueHint};
use std::path::PathBuf;

/// Certificates for the services of your namespace: why one is missing, what to write instead, what is in a Secret.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pki", bin_name = "kubectl pki", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub access: Access,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pki check -f app1.yaml --policy policies/   # would it be refused? without a cluster
  kubectl pki explain app1-pki                        # why is there no certificate?
  kubectl pki status -A                               # all Pkis, those that end first on top

Put the binary kubectl-pki on your PATH, and kubectl finds it.
kubectl pki COMMAND --help says more of each command.";

/// What the plugin does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge Pkis in files as the cluster would, in the same words.
    ///
    /// Every Pki in the files is judged by the rule book that the operator's webhook asks: by the policies in these files and in
    /// those of --policy; if there are none, by those of the cluster. What `kubectl apply` would refuse is an error: broken
    /// rules, unknown fields, keys that are there twice, YAML that cannot be read. CEL rules of PkiPolicies are checked by the
    /// API server alone.
    ///
    /// Exit status: 0 if nothing is refused (there may be warnings), 1 if something is, 2 if it could not be judged.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
}

/// What to check, by which policies.
#[derive(Debug, Args)]
pub struct Check {
    /// A file with manifests in YAML or JSON, a directory of them, or - for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true, value_hint = ValueHint::AnyPath)]
    pub filename: Vec<PathBuf>,

    /// Read the directories in a directory too.
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// A file with PkiPolicies (and Namespaces, for policies that select them by label), a list of allowed names (one service
    /// name a line), or a directory of manifests; may be given several times.
    #[arg(long, value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub policy: Vec<PathBuf>,

    /// How to print what is found.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// How the cluster is set up.
    #[command(flatten)]
    pub installation: Installation,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  # In CI, without a cluster: by the policies that the platform team keeps in a directory
  kubectl pki check -f deploy/ -R --policy policies/

  # By a list of allowed names, on what a template engine prints
  helm template . | kubectl pki check -f - --policy AllowedNames

  # By the policies of the cluster, before kubectl apply
  kubectl pki check -f app1.yaml -n team-a

  # As annotations of a pull request; as a report for code scanning
  kubectl pki check -f deploy/ --policy policies/ -o github
  kubectl pki check -f deploy/ --policy policies/ -o sarif > pki.sarif";

/// How the cluster is set up, as far as rules depend on it.
#[derive(Clone, Debug, Args)]
pub struct Installation {
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The namespace of the operator, whose Secrets no Pki may name.
    #[arg(long, value_name = "NS", default_value = "pki-operator")]
    pub operator_namespace: String,

    /// Addresses and ranges (CIDR) that no certificate is for, as the operator's flag has them; the API server's own address
    /// among them.
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = crate::config::addresses)]
    pub reserved_addresses: Vec<ipnet::IpNet>,
}

impl Installation {
    /// The part of the rule book that does not change.
    pub fn settings(&self) -> crate::policy::Settings {
        let reserved = ["pki-operator-ca", "pki-operator-webhook-ca"];
        crate::policy::Settings {
            cluster_domain: self.cluster_domain.trim_matches('.').to_ascii_lowercase(),
            namespace: self.operator_namespace.clone(),
            reserved_secrets: reserved.map(str::to_owned).to_vec(),
            reserved_addresses: self.reserved_addresses.clone(),
        }
    }
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
    fn the_flags_of_kubectl_may_stand_anywhere_after_pki() {
        let cli = Cli::try_parse_from([
            "kubectl-pki",
            "-n",
            "a",
            "check",
            "-f",
            "x",
            "--context",
            "c",
        ]);
        let access = cli.unwrap().access;
        assert_eq!(
            (access.namespace.as_deref(), access.context.as_deref()),
            (Some("a"), Some("c"))
        );
    }
}
