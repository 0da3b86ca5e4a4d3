use super::*;
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use clap::CommandFactory as _;
use jiff::SignedDuration;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_wrong_value_is_refused_with_the_flag_that_has_it_and_what_to_write() {
    for (flag, value, expected) in [
        ("--namespace", "", "write the name of a namespace"),
        ("--namespace", "a.b", "write the name of a namespace"),
        ("--namespaces", "a,team-*", "write the name of a namespace"),
        ("--namespaces", "", "write the name of a namespace"),
        ("--identity", " ", "unlike that of any other replica"),
        ("--listen", "8443", "such as 0.0.0.0:8443"),
        ("--max-connections", "15", "of connections from 16 to 65536"),
        ("--max-requests", "many", "of requests from 16 to 65536"),
        ("--metrics-listen", "localhost:80", "such as 0.0.0.0:8443"),
        ("--webhook-host", "https://a.example", "without a scheme"),
        (
            "--webhook-host",
            "a.example,b.example:8443",
            "without a scheme",
        ),
        ("--webhook-host", "[::1]", "brackets"),
        ("--webhook-host", "*.example.com", "write a host name"),
        (
            "--webhook-configuration",
            "A",
            "write the name of an object",
        ),
        ("--ca-secret", "a/b", "write the name of an object"),
        ("--trust-config-map", "-", "write the name of an object"),
        ("--webhook-ca-secret", "a..b", "write the name of an object"),
        ("--lease", "", "write the name of an object"),
        ("--cluster-domain", "cluster local", "such as cluster.local"),
        ("--cluster-domain", "..", "such as cluster.local"),
        ("--reminder-seconds", "0", "seconds from 1 to 86400"),
        ("--drain-seconds", "soon", "seconds from 0 to 86400"),
        ("--ca", "buy", "make, bring"),
        ("--ca-lifetime-hours", "0", "hours from 1 to 876000"),
        ("--ca-lifetime-hours", "876001", "hours from 1 to 876000"),
        ("--ca-step-seconds", "0", "seconds from 1 to 31536000"),
        (
            "--ca-step-seconds",
            "31536001",
            "seconds from 1 to 31536000",
        ),
        (
            "--webhook-ca-overlap-seconds",
            "14",
            "seconds from 15 to 31536000",
        ),
        ("--restart-on-renewal", "maybe", "true, false"),
        (
            "--restart-spread-seconds",
            "86401",
            "seconds from 0 to 86400",
        ),
        (
            "--reserved-addresses",
            "10.96.0.0/33",
            "such as 10.96.0.0/12",
        ),
        (
            "--otlp-endpoint",
            "collector:4318",
            "such as http://collector:4318",
        ),
        (
            "--otlp-endpoint",
            "grpc://collector:4317",
            "such as http://collector:4318",
        ),
        (
            "--otlp-endpoint",
            "http://a:b@collector:4318",
            "without user",
        ),
        (
            "--otlp-endpoint",
            "http://collector:4318?a=b",
            "without user",
        ),
        ("--otlp-sampling-ratio", "1.1", "a number from 0 to 1"),
        ("--otlp-sampling-ratio", "NaN", "a number from 0 to 1"),
        ("--log-format", "xml", "text, json"),
        (
            "--log-level",
            "pki_operator=loud",
            "such as info,pki_operator=debug",
        ),
        ("--log-level", "verbose", "\"verbose\" is not a level"),
        (
            "--log-level",
            "pki_operator=debug,inof",
            "\"inof\" is not a level",
        ),
    ] {
        let error = read(&[flag, value]).unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(expected), "{error}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_by_the_flags_at_fault() {
    for (flags, expected) in [
        (
            &["--ca-secret=x", "--webhook-ca-secret=x"][..],
            r#"--ca-secret and --webhook-ca-secret both name the Secret "x""#,
        ),
        (
            &["--trust-config-map=pki-operator-ca"],
            r#"--ca-secret and --trust-config-map both name the ConfigMap "pki-operator-ca""#,
        ),
        (
            &["--listen=127.0.0.1:8080"],
            "--listen (127.0.0.1:8080) and --metrics-listen (0.0.0.0:8080) have one port",
        ),
        (
            &["--ca-lifetime-hours=215"],
            "--ca-lifetime-hours and --ca-step-seconds: a CA of 215h cannot be replaced in steps of 24h",
        ),
    ] {
        let error = read(flags).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let both = read(&[
        "--ca-secret=x",
        "--webhook-ca-secret=x",
        "--listen=0.0.0.0:8080",
    ]);
    assert_eq!(both.unwrap_err().to_string().lines().count(), 2);
    for flags in [
        &["--ca-lifetime-hours=216"][..],
        &["--listen=127.0.0.1:8080", "--metrics-listen=127.0.0.2:8080"],
        &["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"],
        &["--webhook-ca-secret=pki-trust-bundle"],
        &[
            "--cluster-domain=Corp.Example.",
            "--webhook-host=A.example,::1,192.0.2.1",
        ],
    ] {
        config(flags);
    }
}

/// The file `name`, with this content, in a folder of the tests.
fn file(name: &str, content: &str) -> String {
    let path = std::env::temp_dir().join(format!("pki-operator-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// With a file of this content, and these flags.
fn with_file(name: &str, content: &str, flags: &[&str]) -> Result<Config, String> {
    let file = file(name, content);
    let read = read(&[&["--config", &file], flags].concat());
    std::fs::remove_file(&file).unwrap();
    read.map_err(|error| error.to_string().replace(&file, "f"))
}

#[test]
fn a_file_has_the_flags_that_the_command_line_leaves_open() {
    let content = "
# In the order of --help.
cluster-domain: corp.example
webhook-host: [a.example, '::1']
reserved-addresses: 10.0.0.0/8,192.0.2.1
drain-seconds: 7
restart-on-renewal: no
ca: bring
log-level: off
identity: 007
lease: \"1\"
";
    let config = with_file(
        "open",
        content,
        &["--drain-seconds=9", "--webhook-host=b.example"],
    );
    let config = config.unwrap();
    assert_eq!(config.cluster_domain, "corp.example");
    assert_eq!(
        config.webhook_host,
        ["b.example"],
        "the flag is not added to"
    );
    assert_eq!(config.reserved_addresses.len(), 2);
    assert_eq!(config.drain_seconds, Duration::from_secs(9));
    assert!(!config.restart_on_renewal);
    assert_eq!(config.ca, CaSource::Bring);
    assert_eq!(
        (config.log_level, config.identity),
        ("off".into(), "007".into())
    );
    assert_eq!(config.lease, "1");
    assert_eq!(config.namespace, "pki-operator", "the default");

    let config = with_file(
        "list",
        "webhook-host: [a.example, '::1']\nreserved-addresses: []",
        &[],
    );
    let config = config.unwrap();
    assert_eq!(config.webhook_host, ["a.example", "::1"]);
    assert_eq!(config.reserved_addresses, []);
    for empty in ["", "# nothing yet\n", "{}"] {
        assert!(with_file("empty", empty, &[]).is_ok());
    }
}

#[test]
fn faults_in_a_file_are_reported_with_their_place_and_a_remedy() {
    for (content, expected) in [
        (
            "drain-secnds: 5",
            r#"f:1:1: unknown key "drain-secnds"; did you mean "drain-seconds"?"#,
        ),
        (
            "drainSeconds: 5",
            r#"f:1:1: unknown key "drainSeconds"; did you mean "drain-seconds"?"#,
        ),
        (
            "--lease: a",
            r#"f:1:1: unknown key "--lease"; did you mean "lease"?"#,
        ),
        (
            "replicas: 2",
            r#"f:1:1: unknown key "replicas"; `pki-operator run --help` lists the flags"#,
        ),
        (
            "help: true",
            r#"f:1:1: unknown key "help"; `pki-operator run --help` lists the flags"#,
        ),
        (
            "config: g",
            "f:1:1: config: a file cannot name another: remove it",
        ),
        (
            "ca: make\n\ndrain-seconds: 1\nca: bring",
            "f:4:1: ca: is set in line 1 too: remove one",
        ),
        (
            "drain-seconds: soon",
            r#"f:1:16: drain-seconds: "soon" cannot be used: write a whole number of seconds from 0 to 86400"#,
        ),
        (
            "drain-seconds: 1.5",
            r#"f:1:16: drain-seconds: "1.5" cannot be used: write a whole number of seconds from 0 to 86400"#,
        ),
        (
            "ca: buy",
            r#"f:1:5: ca: "buy" cannot be used: write one of: make, bring"#,
        ),
        (
            "ca: yes",
            r#"f:1:5: ca: "yes" cannot be used: write one of: make, bring"#,
        ),
        (
            "ca: [make]",
            "f:1:5: ca: takes a plain value here, not a list",
        ),
        (
            "ca:\n  source: make",
            "f:1:1: ca: takes a plain value here, not a mapping",
        ),
        (
            "ca:",
            "f:1:1: ca: has no value: write one, or remove the key",
        ),
        (
            "webhook-host:\n- a\n- b:1\n- [c]",
            "f:3:3: webhook-host: \"b:1\" cannot be used: write a host name or an IP address, without a scheme, a port or \
             brackets around it\nf:4:3: webhook-host: takes a plain value here, not a list",
        ),
        (
            "- drain-seconds",
            "f:1:1: write a mapping of flags without dashes, such as `drain-seconds: 5`",
        ),
        ("ca: [", "f:1:5: this is not YAML: "),
        (
            "ca: make\n---\nca: make",
            "f:3:1: only one document is read: remove the others",
        ),
        (
            "\"\\e[31m\": 1",
            r#"f:1:1: unknown key "\u{1b}[31m"; `pki-operator run --help` lists the flags"#,
        ),
        (
            "ca-secret: a\nwebhook-ca-secret: a",
            r#"--ca-secret and --webhook-ca-secret both name the Secret "a": give each a name of its own"#,
        ),
    ] {
        let error = with_file("wrong", content, &[]).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_file_is_wrong_even_where_a_flag_goes_before_it() {
    let error = with_file("hidden", "drain-seconds: soon", &["--drain-seconds=5"]);
    assert!(error.unwrap_err().starts_with("f:1:16: drain-seconds"));
}

#[test]
fn a_missing_file_is_named() {
    let error = read(&["--config=/nowhere/at/all.yaml"]).unwrap_err();
    let expected = "cannot read /nowhere/at/all.yaml: ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

/// A new flag needs a decision on how the chart sets it.
#[test]
fn every_flag_can_be_set_in_the_chart() {
    let schema: Value = serde_json::from_str(include_str!(
        "../../../charts/pki-operator/values.schema.json"
    ))
    .unwrap();
    let of_config: BTreeSet<_> = schema["properties"]["config"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let deployment = include_str!("../../../charts/pki-operator/templates/deployment.yaml");
    let arguments = deployment
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"));
    let passed: BTreeSet<_> = arguments
        .filter_map(|it| Some(it.split_once('=')?.0))
        .collect();
    // From the pod, or fixed because other objects of the chart rely on them.
    let fixed = BTreeSet::from([
        "api-server-address",
        "ca-secret",
        "identity",
        "lease",
        "listen",
        "metrics-listen",
        "namespace",
        "trust-config-map",
        "webhook-ca-secret",
    ]);
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let flags: BTreeSet<_> = run
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    let mut settable = BTreeSet::new();
    for flag in of_config.iter().chain(&passed).chain(&fixed) {
        assert!(settable.insert(*flag), "there are two ways to set {flag}");
    }
    assert_eq!(settable, flags);
}

fn read(flags: &[&str]) -> Result<Config, ConfigError> {
    let arguments = [&["pki-operator", "run"], flags].concat();
    let cli = Cli::read(arguments.into_iter().map(OsString::from).collect())?;
    let Command::Run(config) = cli.command else {
        panic!("{cli:?}")
    };
    Ok(*config)
}

fn config(flags: &[&str]) -> Config {
    read(flags).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_ca_is_made_for_ten_years_and_replaced_in_steps_of_a_day() {
    let ca = config(&[]).ca();
    assert_eq!(ca.secret, Key::new("pki-operator", "pki-operator-ca"));
    assert!(!ca.is_brought);
    assert_eq!(ca.lifetime, SignedDuration::from_hours(87_600));
    assert_eq!(ca.times.step, SignedDuration::from_hours(24));
    assert_eq!(ca.times.wait, SignedDuration::from_hours(7 * 24));
    assert_eq!(ca.retention, SignedDuration::from_hours(30 * 24));

    let flags = ["--ca", "bring", "--namespace", "pki", "--ca-secret", "ca"];
    let ca = config(&flags).ca();
    assert_eq!((ca.secret, ca.is_brought), (Key::new("pki", "ca"), true));
    let ca = config(&["--ca-lifetime-hours", "1", "--ca-step-seconds", "2"]).ca();
    assert_eq!((ca.lifetime.as_secs(), ca.times.step.as_secs()), (3600, 2));
}

#[test]
fn a_ca_of_the_webhook_is_trusted_for_as_long_as_its_leaves_live() {
    let webhook = config(&[]).webhook();
    assert_eq!(
        webhook.secret,
        Key::new("pki-operator", "pki-operator-webhook-ca")
    );
    assert_eq!(webhook.hosts, ["pki-operator.pki-operator.svc"]);
    assert_eq!(webhook.overlap, SignedDuration::from_hours(24));
    let flags = [
        "--webhook-ca-overlap-seconds=15",
        "--webhook-host=a.example.com,127.0.0.1",
    ];
    let webhook = config(&flags).webhook();
    assert_eq!(webhook.overlap.as_secs(), 15);
    assert_eq!(webhook.hosts, ["a.example.com", "127.0.0.1"]);
}

#[test]
fn all_namespaces_are_served_unless_there_is_a_list() {
    assert!(matches!(config(&[]).scope(), Scope::Cluster));
    let scope = config(&["--namespaces=a,b", "--namespaces", "c"]).scope();
    let served = ["a", "b", "c", "d", "pki-operator"].map(|name| scope.contains(name));
    assert_eq!(served, [true, true, true, false, false]);
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
