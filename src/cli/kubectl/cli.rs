//! The command line of `kubectl pki`.
#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are what --help prints"
)]

use super::output::Format;
use crate::k8s::client::Access;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// Check, explain, list, renew and inspect the certificates of your namespace.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pki", bin_name = "kubectl pki", version, after_help = EXAMPLES)]
pub struct PluginCli {
    /// The cluster.
    #[command(flatten)]
    pub access: Access,
    /// The subcommand.
    #[command(subcommand)]
    pub command: PluginCommand,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pki check -f app1.yaml --policy policies/   # check a file without a cluster
  kubectl pki explain app1-pki                        # show why a certificate is missing
  kubectl pki status -A                               # list all Pkis, earliest expiry first

kubectl finds the plugin if the binary kubectl-pki is on your PATH.
kubectl pki COMMAND --help describes each command.";

/// Subcommands of the plugin.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Check Pkis in files: print the same errors as kubectl apply would.
    ///
    /// The check uses the rules of the operator's webhook. Policies come from these files and from
    /// --policy. If there are none, the check uses those of the cluster. If you may not read
    /// those, the API server checks each Pki in a dry run, for which you need the role edit.
    ///
    /// Errors are all faults that `kubectl apply` would refuse: broken rules, unknown fields, wrong
    /// types, metadata, unrendered templates, and YAML that cannot be read. Policies in these
    /// files are checked too. An annotation or label of box.com/ without an effect is a warning, on
    /// objects of every kind.
    ///
    /// Exit status: 0 without errors (there may be warnings), 1 with errors, 2 if the check could
    /// not run.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),

    /// Test policies with example Pkis.
    #[command(subcommand)]
    Policy(Policy),

    /// Explain why a Pki has a certificate or has none, and what to do.
    ///
    /// Prints one page: the state and its reason, the verdict of the policies, the content of the
    /// Secret (never the key), the pods that use it and their Events. The page names the parts that
    /// you may not read. Exit status: 0, or 1 if the Pki does not exist.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),

    /// List Pkis: first those without a certificate, then by expiry.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),

    /// Renew certificates now, and wait for the result.
    ///
    /// Sets the annotation box.com/renew-now, which the operator removes. The operator renews a Pki
    /// on request at most once in five minutes; an earlier request waits until then. The command
    /// waits for it only if --timeout lasts that long. Exit status: 0 if all are renewed, 1 if one
    /// is not, 2 if the request failed.
    #[command(after_help = RENEW_EXAMPLES)]
    Renew(Renew),

    /// Show the certificates in a Secret or a PEM file, whether clients accept them, and whether
    /// the key matches.
    ///
    /// The output never has the key itself.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),

    /// Print a completion script for a shell.
    ///
    /// The script completes the command kubectl-pki. For `kubectl pki`, kubectl calls
    /// the command kubectl_complete-pki: save this script under that name on your
    /// PATH, and make it executable.
    ///
    ///   #!/bin/sh
    ///   exec kubectl-pki __complete "$@"
    #[command(verbatim_doc_comment, after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// The shell.
        shell: Shell,
    },

    /// Complete a command line for kubectl.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// The flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Read manifests in YAML or JSON from this file or directory, or from standard input (-). May
    /// be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true, value_hint = ValueHint::AnyPath)]
    pub filename: Vec<PathBuf>,

    /// Read subdirectories too. Default: only the files of a directory.
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// Use the policies in this file or directory. Manifests have PkiPolicies, and Namespaces for
    /// policies that select by label. A file with one service name per line is a list of allowed
    /// names. May be repeated. Default: the policies of the cluster.
    #[arg(long, value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub policy: Vec<PathBuf>,

    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// The cluster's settings.
    #[command(flatten)]
    pub installation: Installation,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  # In CI, without a cluster: with the policies in a directory
  kubectl pki check -f deploy/ -R --policy policies/

  # The output of a template engine, with a list of allowed names
  helm template . | kubectl pki check -f - --policy AllowedNames

  # With the policies of the cluster, before kubectl apply
  kubectl pki check -f app1.yaml -n team-a

  # Annotations of a pull request, and a report for code scanning
  kubectl pki check -f deploy/ --policy policies/ -o github
  kubectl pki check -f deploy/ --policy policies/ -o sarif > pki.sarif";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  kubectl pki explain app1-pki
  kubectl pki explain app1-pki -n app1 --context production";

const STATUS_EXAMPLES: &str = "\
Examples:
  kubectl pki status
  kubectl pki status -A
  kubectl pki status -A -o json | jq -r '.[] | select(.ready != \"True\") | .namespace + \"/\" + .name'";

const RENEW_EXAMPLES: &str = "\
Examples:
  kubectl pki renew app1-pki
  kubectl pki renew --all -n app1 --timeout 5m
  kubectl pki renew app1-pki --wait=false";

const INSPECT_EXAMPLES: &str = "\
Examples:
  kubectl pki inspect secret/app1-pki
  kubectl pki inspect pki/app1-pki
  kubectl pki inspect /etc/tls/tls.crt
  openssl s_client -connect app1:443 -showcerts </dev/null | kubectl pki inspect -";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  source <(kubectl pki completion bash)
  kubectl pki completion zsh > \"${fpath[1]}/_kubectl-pki\"
  kubectl pki completion fish > ~/.config/fish/completions/kubectl-pki.fish";

/// Subcommands of `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Run test cases: Pkis, and the expected verdict of the policies on each.
    ///
    /// Prints each failed case with the expected and the actual verdict. Exit status: 0 if all
    /// cases pass, 1 if one fails, 2 if they could not run.
    #[command(after_help = POLICY_TEST_EXAMPLES)]
    Test(PolicyTest),
}

/// The flags of `policy test`.
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// File with test cases, in the form of the example below. May be repeated.
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Use the policies in this file or directory, besides those that the files with test cases
    /// name. May be repeated. Default: none.
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub policy: Vec<PathBuf>,

    /// Print every effective value of each admitted Pki, and its source (Pki, policy or built-in).
    #[arg(long)]
    pub show_values: bool,

    /// The cluster's settings.
    #[command(flatten)]
    pub installation: Installation,
}

const POLICY_TEST_EXAMPLES: &str = "\
Example:
  kubectl pki policy test policies/tests.yaml

Content of policies/tests.yaml:
  policies: [teams.yaml]         # files or directories, relative to this file
  cases:
    - name: a team gets its own names
      namespace: team-a
      labels: {stage: live}      # of the namespace
      spec: {serviceName: team-a-web}
      expect: admitted
      policy: teams              # optional: the PkiPolicy that permits it
      effective: {duration: 720h}   # optional: effective values; --show-values prints all
    - name: a team does not get names of others
      namespace: team-a
      spec: {serviceName: team-b-web}
      expect: refused
      reason: PkiServiceNameError   # optional
      message: not found in         # optional: a part of the message";

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Name of the Pki.
    pub name: String,

    /// The cluster's settings.
    #[command(flatten)]
    pub installation: Installation,
}

/// The flags of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// List the Pkis of all namespaces. Default: those of one namespace.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ListFormat,

    /// Namespace of the operator. Its ConfigMap pki-operator-ca lists the Secrets that a rotation
    /// of the CA cannot update. Without permission to read it, the output omits that part.
    #[arg(long, value_name = "NS", default_value = "pki-operator")]
    pub operator_namespace: String,
}

/// Format of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table.
    #[default]
    Text,
    /// A JSON array.
    Json,
}

/// The flags of `renew`.
#[derive(Debug, Args)]
pub struct Renew {
    /// Names of the Pkis.
    #[arg(
        value_name = "NAME",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub names: Vec<String>,

    /// Renew all Pkis of the namespace.
    #[arg(long)]
    pub all: bool,

    /// Wait until the certificates are renewed.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = ArgAction::Set)]
    pub wait: bool,

    /// Maximum time to wait, for example 90s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = patience)]
    pub timeout: Duration,
}

fn patience(text: &str) -> Result<Duration, String> {
    let length = text.parse::<jiff::SignedDuration>().ok();
    let length = length.and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| "write a length of time, for example 90s or 5m".to_owned())
}

/// The flags of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Secret (secret/NAME), Secret of a Pki (pki/NAME), PEM file, or - for standard input.
    #[arg(value_name = "secret/NAME|pki/NAME|FILE|-")]
    pub what: String,
}

/// Settings of the cluster that rules depend on.
#[derive(Clone, Debug, Args)]
pub struct Installation {
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Namespace of the operator. No Pki may name its Secrets.
    #[arg(long, value_name = "NS", default_value = "pki-operator")]
    pub operator_namespace: String,

    /// IP addresses and ranges (CIDR) that no policy can permit, as in the operator's flag.
    /// Include the API server's own address. Separated by commas; may be repeated. Default: none.
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = crate::cli::config::addresses)]
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
            has_secrets: true,
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
        PluginCli::command().debug_assert();
    }

    #[test]
    fn the_flags_of_kubectl_may_stand_anywhere_after_pki() {
        let cli = PluginCli::try_parse_from([
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
