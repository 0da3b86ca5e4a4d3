use super::*;
use pki_certs::Authority;

fn lines<'a>(page: &'a str, metric: &str) -> Vec<&'a str> {
    page.lines()
        .filter(|line| line.starts_with(&format!("pki_operator_{metric}{{")))
        .collect()
}

#[test]
fn an_alarm_is_shown_while_it_lasts() {
    let metrics = Metrics::default();
    for (alarm, shown) in [
        (None, vec![]),
        (
            Some("lost"),
            vec![r#"pki_operator_ca_alarm{reason="lost"} 1"#],
        ),
        (
            Some("replaced"),
            vec![r#"pki_operator_ca_alarm{reason="replaced"} 1"#],
        ),
        (None, vec![]),
    ] {
        metrics.ca_alarm(alarm);
        assert_eq!(lines(&metrics.page(), "ca_alarm"), shown);
    }
}

#[test]
fn the_end_of_each_ca_is_shown_while_it_is_one() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let authority = Authority::generate("ca", SignedDuration::from_hours(1), now).unwrap();
    let state = CaState::of(authority.ca().clone());
    let pem = authority.ca().root_pem().to_owned();
    let data = ["current.crt", "next.crt"].map(|key| (key.to_owned(), pem.clone()));
    let map = k8s_openapi::api::core::v1::ConfigMap {
        data: Some(data.into()),
        ..Default::default()
    };
    let both = CaState::read(&map, now).unwrap();
    let metrics = Metrics::default();
    metrics.ca(&both);
    assert_eq!(
        lines(&metrics.page(), "ca_expiry_timestamp_seconds").len(),
        2
    );
    metrics.ca(&state);
    let end = r#"pki_operator_ca_expiry_timestamp_seconds{role="current"} 1893459600"#;
    assert_eq!(lines(&metrics.page(), "ca_expiry_timestamp_seconds"), [end]);
}

#[test]
fn the_ends_of_the_webhooks_certificates_are_shown_once_there_are_any() {
    let metrics = Metrics::default();
    let shown = |page: &str| lines(page, "webhook_expiry_timestamp_seconds").join("\n");
    assert_eq!(shown(&metrics.page()), "");
    let at = |second| Timestamp::from_second(second).unwrap();
    metrics.webhook(at(1), at(2));
    metrics.webhook(at(2_000_000_000), at(1_900_000_000));
    for (role, end) in [("ca", 2_000_000_000), ("serving", 1_900_000_000)] {
        let line = format!(r#"{{role="{role}"}} {end}"#);
        assert!(shown(&metrics.page()).contains(&line), "{}", metrics.page());
    }
}

#[test]
fn a_failure_that_has_not_happened_is_zero_and_not_absent() {
    let metrics = Metrics::default();
    let failures = |page: &str| lines(page, "issuance_failures_total").join("\n");
    let page = metrics.page();
    for reason in ["ca", "certificate", "format", "api"] {
        assert!(
            failures(&page).contains(&format!("{{reason=\"{reason}\"}} 0")),
            "{page}"
        );
    }
    let restarts = r#"pki_operator_restarts_total{result="failed"} 0"#;
    assert!(page.contains(restarts), "{page}");
    metrics.issuance_failed("format");
    assert!(failures(&metrics.page()).contains(r#"{reason="format"} 1"#));
    metrics.issued("ca");
    let issued = [r#"pki_operator_issuances_total{reason="ca"} 1"#];
    assert_eq!(lines(&metrics.page(), "issuances_total"), issued);
}
