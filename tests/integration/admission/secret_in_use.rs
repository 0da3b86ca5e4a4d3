//! Secrets that pods use, when their Pki names another one or is deleted.

use crate::harness::{Namespace, SHARED, arena, eventually, file, notes};
use pki_cluster::testing::manifest;
use serde_json::json;
use std::time::{Duration, Instant};

/// A Deployment with two replicas that mount this Secret.
fn deploy(ns: &Namespace<'_>, secret: &str) {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}],
                "volumes": [{"name": "v", "secret": {"secretName": secret}}]}}}});
    ns.apply_object(&deployment);
}

/// The two pods of the Deployment whose template names this Secret.
fn pods(ns: &Namespace<'_>, secret: &str) -> [String; 2] {
    eventually("there are two pods", || {
        let pods = ns.list("pods", "app=web");
        let pods = pods
            .iter()
            .filter(|pod| pod["spec"]["volumes"][0]["secret"]["secretName"] == secret);
        let names = pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.try_into().ok()
    })
}

/// The warnings of kubectl, and whether it succeeds.
fn warnings(ns: &Namespace<'_>, arguments: &[&str], input: &str) -> (String, bool) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut kubectl = ns.installed.cluster.kubectl();
    kubectl.args(arguments).args(["--namespace", &ns.name]);
    kubectl.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = kubectl.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    (stderr, output.status.success())
}

fn pki(secret: &str) -> String {
    manifest::pki("web", &json!({"serviceName": "app1", "secretName": secret})).to_string()
}

/// The operator's line with this reason in `kubectl describe pod`, for each of these pods.
fn described(ns: &Namespace<'_>, pods: &[String], reason: &str) -> Vec<String> {
    let described = pods.iter().map(|pod| {
        eventually(&format!("{pod} has {reason}"), || {
            let events = ns.events("Pod", pod);
            events.iter().find(|event| event["reason"] == reason)?;
            let printed = ns.kubectl(&["describe", "pod", pod]).ok()?;
            let line = printed.lines().find(|line| line.contains(reason))?;
            let (_, said) = line.split_once(" pki-operator ")?;
            Some(said.trim().to_owned())
        })
    });
    described.collect()
}

#[test]
fn a_secret_stays_while_pods_use_it_although_its_pki_names_another_one() {
    let ns = SHARED.namespace("in-use");
    ns.kubectl_apply(&pki("tls")).unwrap();
    let first = ns.wait_until_ready("web");
    deploy(&ns, "tls");
    let names = pods(&ns, "tls");
    let content = file(&ns.get("secret", "tls").unwrap(), "tls.crt");

    let expected = |who: &str| {
        format!(
            "Warning: spec.secretName: {who}; the Pki writes moved from now on, so write moved in the pods: Secret tls is no \
             longer renewed, and is removed when no pod uses it, at the latest when its certificate ends at {}",
            first["status"]["notAfter"].as_str().unwrap()
        )
    };
    let who = format!("2 pods use Secret tls ({}, {})", names[0], names[1]);
    let dry_run = ["apply", "--dry-run=server", "--filename=-"];
    assert_eq!(
        warnings(&ns, &dry_run, &pki("moved")),
        (expected(&who), true)
    );
    let (warned, _) = warnings(&ns, &["apply", "--filename=-"], &pki("moved"));
    assert_eq!(warned, expected(&who));
    let moved = eventually("the other Secret is written", || {
        let pki = ns.wait_until_ready("web");
        (pki["status"]["secretName"] == "moved").then_some(pki)
    });
    let former = &moved["status"]["formerSecrets"][0];
    assert_eq!(former["name"], "tls");
    assert_eq!(former["notAfter"], first["status"]["notAfter"]);
    ns.barrier();
    let secret = ns.get("secret", "tls").expect("it stays");
    assert_eq!(file(&secret, "tls.crt"), content);
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"], first["metadata"]["uid"],
        "it goes with its Pki"
    );

    // The pods get the new name, and the Secret goes when the last of the old ones is gone.
    deploy(&ns, "moved");
    pods(&ns, "moved");
    let gone = Instant::now();
    eventually("nobody uses it", || {
        ns.get("secret", "tls").is_none().then_some(())
    });
    assert!(
        gone.elapsed() > Duration::from_secs(5),
        "a pod may be replaced"
    );
    assert!(ns.get("secret", "moved").is_some());
    // One that comes late waits, and an Event says why.
    ns.pod_with("late", "tls");
    let late = ["late".to_owned()];
    let since = former["replacedTime"].as_str().unwrap();
    assert_eq!(
        described(&ns, &late, "PkiSecretRenamed"),
        [format!(
            "Pki {}/web now writes Secret moved instead of tls, since {since}; there is no Secret tls: write moved in the pod, or \
             secretName: tls in the spec of the Pki",
            ns.name
        )]
    );
    // Back again.
    ns.kubectl_apply(&pki("tls")).unwrap();
    eventually("it is written again", || ns.get("secret", "tls"));
}

#[test]
fn a_secret_that_another_pki_claims_does_not_wait_for_the_pods() {
    let ns = SHARED.namespace("handed-over");
    ns.apply(&pki("tls"));
    ns.wait_until_ready("web");
    ns.pod_with("user", "tls");
    ns.apply(&pki("moved"));
    ns.wait_until_ready("web");
    assert!(ns.get("secret", "tls").is_some());
    ns.apply_pki("next", r#"{"serviceName": "app2", "secretName": "tls"}"#);
    let next = ns.wait_until_ready("next");
    let owner = &ns.get("secret", "tls").unwrap()["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], next["metadata"]["uid"]);
    ns.barrier();
    assert_eq!(notes(&ns.events("Pod", "user")), Vec::<String>::new());
    assert_eq!(notes(&ns.events("Pki", "next")), Vec::<String>::new());
}

#[test]
fn a_deletion_warns_of_pods_and_waiting_pods_get_an_event_about_the_secret() {
    let ns = SHARED.namespace("went");
    ns.apply(&pki("tls"));
    ns.wait_until_ready("web");
    deploy(&ns, "tls");
    let names = pods(&ns, "tls");
    let warning = format!(
        "Warning: 2 pods use Secret tls ({}, {}), which is removed with Pki {}/web: a pod that uses it cannot start again; to keep \
         the Secret, annotate the Pki with box.com/keep-secret=true before it is deleted",
        names[0], names[1], ns.name
    );
    let dry_run = ["delete", "pki", "web", "--dry-run=server"];
    assert_eq!(warnings(&ns, &dry_run, ""), (warning.clone(), true));
    assert!(ns.get("pki", "web").is_some(), "it was a dry run");
    let by_many = ["delete", "pkis", "--all", "--dry-run=server"];
    assert_eq!(warnings(&ns, &by_many, "").0, warning);
    let delete = ["delete", "pki", "web"];
    assert_eq!(warnings(&ns, &delete, ""), (warning, true));
    eventually("Kubernetes collects the Secret", || {
        ns.get("secret", "tls").is_none().then_some(())
    });
    let said = described(&ns, &names, "PkiSecretRemoved");
    let begin = format!(
        "Secret tls was removed when Pki {}/web was deleted at 20",
        ns.name
    );
    let end = ": apply the Pki again, or remove the Secret from the pod";
    assert!(
        said[0].starts_with(&begin) && said[0].ends_with(end),
        "{said:?}"
    );
    assert_eq!(said[0], said[1]);

    ns.apply(&pki("tls"));
    ns.wait_until_ready("web");
    for pod in &names {
        let notes = notes(&ns.wait_for_events("Pod", pod, 2));
        assert!(
            notes[1].starts_with("Normal: Secret tls is there now: "),
            "{notes:?}"
        );
    }
}

#[test]
fn nobody_is_warned_where_the_secret_stays_or_nobody_uses_it() {
    let ns = SHARED.namespace("unused");
    for name in ["unused", "kept", "orphan"] {
        let spec = json!({"serviceName": "app1", "secretName": name});
        ns.apply_pki(name, &spec.to_string());
        ns.wait_until_ready(name);
    }
    for name in ["kept", "orphan"] {
        ns.pod_with(name, name);
    }
    ns.annotate("pki", "kept", "box.com/keep-secret", "true");
    eventually("the Secret is let go", || {
        let secret = ns.get("secret", "kept")?;
        secret["metadata"]["ownerReferences"]
            .is_null()
            .then_some(())
    });
    for arguments in [
        &["delete", "pki", "unused"][..],
        &["delete", "pki", "kept"],
        &["delete", "pki", "orphan", "--cascade=orphan"],
    ] {
        assert_eq!(warnings(&ns, arguments, ""), (String::new(), true));
    }
    ns.barrier();
    for name in ["kept", "orphan"] {
        assert!(ns.get("secret", name).is_some(), "{name}");
        assert_eq!(notes(&ns.events("Pod", name)), Vec::<String>::new());
    }
}

/// A deletion goes through while nobody answers; and what pods use outlives a restart of the
/// operator.
#[test]
fn neither_a_deletion_nor_a_former_secret_depends_on_an_operator_that_runs() {
    let arena = arena();
    let reminder = ["--reminder-seconds", "1"];
    let operator = arena.first_replica("operator-1", &reminder).unwrap();
    let ns = arena.namespace("outage");
    ns.apply(&pki("tls"));
    ns.apply_pki("other", r#"{"serviceName": "app2"}"#);
    ns.wait_until_ready("web");
    ns.wait_until_ready("other");
    ns.pod_with("a", "tls");
    ns.pod_with("b", "tls");
    ns.apply(&pki("moved"));
    let pki = ns.wait_until_ready("web");
    // A rollout is given time, which is over after a second here.
    let former = &pki["status"]["formerSecrets"][0];
    let text = |field: &str| former[field].as_str().unwrap();
    let expected = format!(
        "Pki {}/web now writes Secret moved instead of tls, since {}: write moved in the pod; Secret tls is not renewed, and is \
         removed when its certificate ends at {}",
        ns.name,
        text("replacedTime"),
        text("notAfter")
    );
    let both = ["a", "b"].map(str::to_owned);
    let said = described(&ns, &both, "PkiSecretRenamed");
    assert_eq!(said, [expected.clone(), expected]);

    operator.process.kill().unwrap();
    drop(operator);
    let (said, is_done) = warnings(&ns, &["delete", "pki", "other", "--timeout=20s"], "");
    assert!(is_done, "{said}");
    ns.delete("pod", "a");
    let _operator = arena.first_replica("operator-2", &[]).unwrap();
    arena.barrier();
    assert!(ns.get("secret", "tls").is_some(), "b uses it still");
    ns.delete("pod", "b");
    eventually("it is removed by the operator that came later", || {
        ns.get("secret", "tls").is_none().then_some(())
    });
    let moved = ns.get("secret", "moved").unwrap();
    assert_eq!(moved["metadata"]["ownerReferences"][0]["name"], "web");
}
