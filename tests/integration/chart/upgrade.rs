//! From the chart before to this one, and what stays when it is removed.

use crate::harness::{
    Installed, Namespace, arena, chart, chart_before, eventually, operator_binary,
};
use crate::security::strangers::{PLAIN, paths, segment_of};
use pki_cluster::install::{self, RELEASE};
use pki_cluster::pages::Page;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

const INSTALL: &str = include_str!("../../../src/guide/install.md");
const PKIS: [&str; 3] = ["app1-pki", "app2-pki", "kept-pki"];

#[test]
fn an_upgrade_from_the_chart_before_keeps_all_that_was_issued() {
    let arena = arena();
    let bare = Bare::of(&arena);
    let policies = "--set=policies.extra.serviceNames={extra}";
    bare.helm(
        "install",
        &chart_before(),
        &["--set=allowedNames={app1,app2}", policies],
    );
    bare.renew_account().unwrap();
    let ns = arena.namespace("upgrade");
    // Today's operator stands in for the one before, which patched a status.
    let rbac = "rbac.authorization.k8s.io";
    let update = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "stand-in"},
        "rules": [{"apiGroups": ["box.com"], "resources": ["pkis/status"], "verbs": ["update"]}]});
    let bind = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "stand-in"},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "stand-in"},
        "subjects": [{"kind": "ServiceAccount", "namespace": RELEASE, "name": RELEASE}]});
    for object in [&update, &bind] {
        arena.api.create("", object).unwrap();
    }
    let operator = arena.first_replica("before", &[]).unwrap();
    create_pkis(&ns);
    for kind in ["clusterrole", "clusterrolebinding"] {
        arena.api.delete(kind, "", "stand-in").unwrap();
    }
    let before = issued(&ns);
    let bundles = ca_bundles(&arena);
    assert_eq!(bundles.len(), 2, "{bundles:?}");
    let mutating = || {
        let name = "--output=name";
        arena
            .kubectl(&["get", "mutatingwebhookconfigurations", name])
            .unwrap()
    };
    assert_ne!(mutating(), "", "the chart before has one");
    // A chart that does not ask for it gets no secret path: replicas of its version may be asked.
    assert_eq!(paths(&arena), ["/validate", "/validate"]);
    // No operator runs that would repair a fault of the upgrade.
    operator.stop().unwrap();

    apply_definitions(&arena);
    bare.helm("upgrade", &chart(), &["--reuse-values"]);
    assert_eq!(ca_bundles(&arena), bundles);
    // Helm removes it, so the operator needs no permission for it.
    assert_eq!(mutating(), "");
    bare.helm(
        "upgrade",
        &chart(),
        &["--set=allowedNames={app1,app2,app3}"],
    );
    assert_eq!(ca_bundles(&arena), bundles);
    let policies = arena.api.list("pkipolicies", "", "", "").unwrap();
    let policies = policies
        .iter()
        .map(|it| (&it["metadata"]["name"], &it["spec"]["serviceNames"]));
    assert_eq!(
        policies.collect::<Vec<_>>(),
        [(
            &json!("pki-operator-allowed-names"),
            &json!(["app1", "app2", "app3"])
        )]
    );

    assert_eq!(paths(&arena), PLAIN);
    let _operator = arena.first_replica("after", &[]).unwrap();
    let segment = segment_of(&arena);
    // An upgrade leaves it alone, and does not conflict with the operator over it.
    bare.helm("upgrade", &chart(), &["--reuse-values"]);
    assert_eq!(segment_of(&arena), segment);
    ns.apply_pki("app3-pki", r#"{"serviceName": "app3"}"#);
    ns.wait_until_ready("app3-pki");
    let refusal = ns.kubectl_apply_pki("wrong", r#"{"serviceName": "app9"}"#);
    assert!(
        refusal
            .unwrap_err()
            .to_string()
            .contains("[app1 app2 app3]")
    );
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    assert_eq!(issued(&ns), before);

    // A revision has the path of its time, which is the plain one; the operator puts the segment
    // back.
    let rollback = |more: &[&str]| {
        let mut helm = arena.helm().expect("there is Helm");
        helm.args(["rollback", RELEASE, "3", "--namespace", RELEASE]);
        install::run(helm.args(more))
    };
    let refusal = rollback(&[]).unwrap_err().to_string();
    assert!(refusal.contains("conflict"), "{refusal}");
    rollback(&["--force-conflicts"]).unwrap();
    assert_eq!(segment_of(&arena), segment);
}

#[test]
fn an_upgrade_with_the_values_of_the_chart_before_brings_the_definitions_along() {
    let arena = arena();
    let bare = Bare::of(&arena);
    bare.helm("install", &chart_before(), &[]);
    let arguments = [
        "--reuse-values",
        "--set=deployment.enabled=true",
        "--dry-run=server",
    ];
    let rendered = bare.helm("upgrade", &chart(), &arguments);
    assert!(rendered.contains("args: [crd, --apply]"), "{rendered}");
}

#[test]
fn an_installation_brings_definitions_along_only_if_others_are_there() {
    let arena = arena();
    let bare = Bare::of(&arena);
    let arguments = ["--set=deployment.enabled=true", "--dry-run=server"];
    let hook = "args: [crd, --apply]";
    assert!(!bare.helm("install", &chart(), &arguments).contains(hook));
    bare.helm("install", &chart_before(), &[]);
    bare.uninstall().unwrap();
    assert!(bare.helm("install", &chart(), &arguments).contains(hook));
    apply_definitions(&arena);
    assert!(!bare.helm("install", &chart(), &arguments).contains(hook));
}

#[test]
fn a_removal_keeps_what_applications_use_and_stands_in_nobodys_way() {
    let arena = arena();
    let bare = Bare::of(&arena);
    let values = [
        "--set=allowedNames={app1,app2}",
        "--set=admissionPolicy.enabled=true",
    ];
    bare.helm("install", &chart(), &values);
    bare.renew_account().unwrap();
    let ns = arena.namespace("removal");
    ns.label("box.com/trust-bundle", Some("true"));
    let operator = arena.first_replica("removed", &[]).unwrap();
    create_pkis(&ns);
    eventually("the CA bundle is there", || {
        ns.get("configmap", "pki-trust-bundle")
    });
    let before = issued(&ns);

    bare.uninstall().unwrap();
    operator.process.kill().unwrap();
    assert_eq!(issued(&ns), before);
    assert_eq!(left_behind(&arena), documented());
    // Nothing stands between people and their objects.
    ns.apply_pki("wrong", r#"{"serviceName": "app9"}"#);
    ns.delete("pki", "wrong");

    // Another installation finds all objects as they were.
    bare.helm("install", &chart(), &values[..1]);
    bare.renew_account().unwrap();
    let _operator = arena.first_replica("back", &[]).unwrap();
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    assert_eq!(issued(&ns), before);

    run_what_the_guide_says(&arena);
    assert_eq!(left_behind(&arena), Vec::<String>::new());
    assert!(ns.get("configmap", "pki-trust-bundle").is_none());
    for name in ["app1-pki", "app2-pki"] {
        eventually("its Secret goes with it", || {
            ns.get("secret", name).is_none().then_some(())
        });
    }
    let kept = ns.get("secret", "kept-pki").expect("it was to be kept");
    assert_eq!(kept["data"], before[2]["data"]);
}

/// A cluster without the operator and its definitions, which is as the others expect it in the end.
struct Bare<'a>(&'a Installed);

impl<'a> Bare<'a> {
    fn of(installed: &'a Installed) -> Self {
        let bare = Self(installed);
        bare.clear().expect("nothing is installed");
        bare
    }

    fn clear(&self) -> anyhow::Result<()> {
        self.uninstall()?;
        self.0.release_pkis()?;
        self.0.delete_definitions()?;
        // Its holder runs no more.
        self.0.api.delete_later("lease", RELEASE, "pki-operator")?;
        Ok(())
    }

    /// Installs a chart, or upgrades to it, for the operator that the tests start.
    fn helm(&self, action: &str, chart: &Path, values: &[&str]) -> String {
        let mut helm = self.0.helm().expect("there is Helm");
        helm.args([action, RELEASE]).arg(chart);
        helm.args(["--namespace", RELEASE, "--create-namespace"]);
        if !values.contains(&"--reuse-values") {
            helm.arg("--set=deployment.enabled=false");
            helm.arg(format!("--set=webhook.url=https://{}", self.0.webhook));
        }
        install::run(helm.args(values)).expect(action)
    }

    fn uninstall(&self) -> anyhow::Result<()> {
        let mut helm = self.0.helm()?;
        helm.args(["uninstall", RELEASE, "--namespace", RELEASE]);
        install::run(helm.arg("--ignore-not-found")).map(drop)
    }

    /// The account goes with the installation, and its tokens with it.
    fn renew_account(&self) -> anyhow::Result<()> {
        install::service_account_kubeconfig(|| self.0.cluster.kubectl(), &self.0.kubeconfig)
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        let restored = self.clear().and_then(|()| self.0.install());
        if let Err(error) = restored.and_then(|()| self.renew_account()) {
            // To panic while a test does would end the others as well.
            eprintln!("the cluster is of no more use: {error:#}");
        }
    }
}

fn create_pkis(ns: &Namespace<'_>) {
    for name in PKIS {
        let service = if name == "app2-pki" { "app2" } else { "app1" };
        ns.apply_pki(name, &json!({ "serviceName": service }).to_string());
    }
    ns.annotate("pki", "kept-pki", "box.com/keep-secret", "true");
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    eventually("its Secret is let go", || {
        let secret = ns.get("secret", "kept-pki")?;
        let owners = &secret["metadata"]["ownerReferences"];
        owners.is_null().then_some(())
    });
}

/// What must not change: which Pkis there are, their certificates, and the Secrets.
fn issued(ns: &Namespace<'_>) -> Vec<Value> {
    let one = |name| {
        let (pki, secret) = (
            ns.get("pki", name).unwrap(),
            ns.get("secret", name).unwrap(),
        );
        json!({
            "pki": pki["metadata"]["uid"], "spec": pki["spec"], "serial": pki["status"]["serialNumber"],
            "secret": secret["metadata"]["uid"], "owners": secret["metadata"]["ownerReferences"], "data": secret["data"],
        })
    };
    PKIS.into_iter().map(one).collect()
}

/// Those of all webhooks, none of them empty.
fn ca_bundles(installed: &Installed) -> Vec<String> {
    let configurations = "validatingwebhookconfiguration";
    let configurations = installed.api.list(configurations, "", "", "").unwrap();
    let webhooks = configurations
        .iter()
        .filter_map(|it| it["webhooks"].as_array());
    let bundles = webhooks.flatten().map(|it| &it["clientConfig"]["caBundle"]);
    bundles
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// As the documentation says it where no Job does.
fn apply_definitions(installed: &Installed) {
    let mut operator = Command::new(operator_binary());
    operator.args(["crd", "--apply"]);
    operator.env("KUBECONFIG", installed.cluster.kubeconfig());
    install::run(&mut operator).expect("they are applied");
}

/// What there is of the operator outside of the namespaces of applications, as `kind/name`.
fn left_behind(installed: &Installed) -> Vec<String> {
    let everywhere = "crd,clusterrole,clusterrolebinding,validatingwebhookconfiguration,mutatingwebhookconfiguration,\
                      validatingadmissionpolicy,validatingadmissionpolicybinding,clustertrustbundle";
    let own = "all,secret,configmap,lease,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget";
    let name = "--output=name";
    let list = |arguments: &[&str]| {
        let list = installed.kubectl(&[&["get", name, "--ignore-not-found"], arguments].concat());
        let list = list.expect("it is listed");
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = list(&[everywhere]);
    found.retain(|object| object.contains("box.com") || object.contains("pki"));
    found.extend(list(&[own, "--namespace", RELEASE]));
    let is_of_kubernetes = |object: &String| {
        object.ends_with("/kube-root-ca.crt") || object == "serviceaccount/default"
    };
    found.retain(|object| !is_of_kubernetes(object));
    found.sort();
    found
}

/// What of that stays when the chart is removed. The documentation has a name for each.
fn documented() -> Vec<String> {
    let objects = [
        "clustertrustbundle.certificates.k8s.io/box.com:pki:ca",
        "clustertrustbundle.certificates.k8s.io/pki-trust-bundle",
        "configmap/pki-operator-ca",
        "customresourcedefinition.apiextensions.k8s.io/pkipolicies.box.com",
        "customresourcedefinition.apiextensions.k8s.io/pkis.box.com",
        "lease.coordination.k8s.io/pki-operator",
        "secret/pki-operator-ca",
        "secret/pki-operator-webhook-ca",
    ];
    let said = section_on_removal();
    for object in objects {
        let name = object.rsplit('/').next().expect("it has a name");
        assert!(said.contains(&format!("`{name}`")), "{object}");
    }
    objects.map(str::to_owned).to_vec()
}

/// The commands that remove everything, as people copy them.
fn run_what_the_guide_says(installed: &Installed) {
    let commands = Page::read("src/guide/install.md")
        .commands_of("Remove everything")
        .join("\n");
    let mut bash = installed.cluster.helm().expect("there is Helm");
    let kubectl = installed.cluster.kubectl();
    let folders = [bash.get_program(), kubectl.get_program()];
    let folders = folders.map(|program| Path::new(program).parent().unwrap().to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path)));
    let environment: Vec<_> = bash
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    bash = Command::new("bash");
    bash.args(["-euxc", &commands]).envs(environment);
    bash.env("PATH", path.unwrap());
    let removal = thread::spawn(move || install::run(&mut bash));
    while !removal.is_finished() {
        installed.press_deletions().expect("definitions are listed");
        thread::sleep(Duration::from_millis(500));
    }
    removal.join().unwrap().expect("it is removed");
}

fn section_on_removal() -> &'static str {
    let heading = "\n## Remove it and keep the certificates\n";
    let (_, section) = INSTALL.split_once(heading).expect("there is one");
    section.split("\n#").next().expect("it ends")
}
