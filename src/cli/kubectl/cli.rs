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

/// Certificates for the services of your namespace: why one is missing, what to write instead, what
/// is in a Secret.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pki", bin_name = "kubectl pki", version, after_help = EXAMPLES)]
pub struct PluginCli {
    /// Which cluster.
    #[command(flatten)]
    pub access: Access,
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
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
pub enum PluginCommand {
    /// Judge Pkis in files as the cluster would, in the same words.
    ///
    /// Every Pki in the files is judged by the rule book that the operator's webhook asks: by the
    /// policies in these files and in those of --policy; if there are none, by those of the
    /// cluster. If you may not read those, the API server judges each Pki in a dry run, for which
    /// you need the role edit. What `kubectl apply` would refuse is an error: broken rules, unknown
    /// fields, wrong types, metadata, templates that are not rendered, YAML that cannot be read;
    /// policies that are in these files are judged as well. An annotation or label of box.com/
    /// without an effect is a warning, on objects of every kind.
    ///
    /// Exit status: 0 if nothing is refused (there may be warnings), 1 if something is, 2 if it
    /// could not be judged.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),

    /// Try policies out on Pkis that need not exist.
    #[command(subcommand)]
    Policy(Policy),

    /// Say why a Pki has its certificate, or has none, and what to do about it.
    ///
    /// One page: how it stands and why, what the policies say of it now, what is in its Secret
    /// (never the key), which pods use it and what they were told. What you may not read is left
    /// out, with a word. Exit status: 0, or 1 if there is no such Pki.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),

    /// List Pkis: those without a certificate first, then those whose certificate ends first.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),

    /// Have certificates renewed now, and wait until they are.
    ///
    /// Sets the annotation box.com/renew-now, which the operator takes away. A Pki is renewed on
    /// request once in five minutes: an earlier request is served when they are over. Exit status:
    /// 0 if all are renewed, 1 if one is not, 2 if that could not be asked for.
    #[command(after_help = RENEW_EXAMPLES)]
    Renew(Renew),

    /// Show what is in a Secret or a PEM file: every certificate, whether clients accept it,
    /// whether the key matches.
    ///
    /// The key itself is never shown.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),

    /// Print a script that completes kubectl-pki in a shell.
    ///
    /// That is for the command kubectl-pki. To complete `kubectl pki`, kubectl asks
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

    /// Answer kubectl, which asks how a line may go on.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What to check, by which policies.
#[derive(Debug, Args)]
pub struct Check {
    /// A file with manifests in YAML or JSON, a directory of them, or - for standard input; may be
    /// given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true, value_hint = ValueHint::AnyPath)]
    pub filename: Vec<PathBuf>,

    /// Read the directories in a directory too.
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// A file with PkiPolicies (and Namespaces, for policies that select them by label), a list of
    /// allowed names (one service name a line), or a directory of manifests; may be given several
    /// times.
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

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Run tables of cases: Pkis, and what the policies shall say of each.
    ///
    /// Prints each case that comes out otherwise, with what was expected and what came. Exit
    /// status: 0 if all come out as expected, 1 if one does not, 2 if they could not be run.
    #[command(after_help = POLICY_TEST_EXAMPLES)]
    Test(PolicyTest),
}

/// Which tables, by which policies.
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// A file with cases.
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// A file or a directory with policies, besides those that the files of cases name; may be
    /// given several times.
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub policy: Vec<PathBuf>,

    /// Also prints every value that counts for a Pki that is admitted, and who decides it.
    #[arg(long)]
    pub show_values: bool,

    /// How the cluster is set up.
    #[command(flatten)]
    pub installation: Installation,
}

const POLICY_TEST_EXAMPLES: &str = "\
Example:
  # policies/tests.yaml; run it with: kubectl pki policy test policies/tests.yaml
  policies: [teams.yaml]         # files or directories, relative to this file
  cases:
    - name: teams get names of their own
      namespace: team-a
      labels: {stage: live}      # of the namespace
      spec: {serviceName: team-a-web}
      expect: admitted
      policy: teams              # optional: the PkiPolicy that permits it
      effective: {duration: 720h}   # optional: values that count; --show-values prints all
    - name: but not those of others
      namespace: team-a
      spec: {serviceName: team-b-web}
      expect: refused
      reason: PkiServiceNameError   # optional
      message: not found in         # optional: a part of what is said";

/// What to explain.
#[derive(Debug, Args)]
pub struct Explain {
    /// The name of the Pki.
    pub name: String,

    /// How the cluster is set up.
    #[command(flatten)]
    pub installation: Installation,
}

/// What to list.
#[derive(Debug, Args)]
pub struct Status {
    /// Those of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// How to print them.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ListFormat,

    /// The namespace of the operator. Its ConfigMap pki-operator-ca names what a rotation of the CA
    /// cannot reach; without permission to read it, that part is left out.
    #[arg(long, value_name = "NS", default_value = "pki-operator")]
    pub operator_namespace: String,
}

/// A form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table.
    #[default]
    Text,
    /// A JSON array.
    Json,
}

/// What to renew.
#[derive(Debug, Args)]
pub struct Renew {
    /// The names of the Pkis.
    #[arg(
        value_name = "NAME",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub names: Vec<String>,

    /// All Pkis of the namespace.
    #[arg(long)]
    pub all: bool,

    /// Whether to wait until they are renewed.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = ArgAction::Set)]
    pub wait: bool,

    /// How long to wait, for example 90s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = patience)]
    pub timeout: Duration,
}

fn patience(text: &str) -> Result<Duration, String> {
    let length = text.parse::<jiff::SignedDuration>().ok();
    let length = length.and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| "write a length of time, for example 90s or 5m".to_owned())
}

/// What to show.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A Secret (secret/NAME), the Secret of a Pki (pki/NAME), a PEM file, or - for standard input.
    #[arg(value_name = "secret/NAME|pki/NAME|FILE|-")]
    pub what: String,
}

/// How the cluster is set up, as far as rules depend on it.
#[derive(Clone, Debug, Args)]
pub struct Installation {
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The namespace of the operator, whose Secrets no Pki may name.
    #[arg(long, value_name = "NS", default_value = "pki-operator")]
    pub operator_namespace: String,

    /// Addresses and ranges (CIDR) that no certificate is for, as the operator's flag has them; the
    /// API server's own address among them.
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
