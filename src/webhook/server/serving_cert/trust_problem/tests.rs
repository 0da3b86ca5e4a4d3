use super::*;
use crate::util::time::tests::now;
use crate::webhook::server::serving_cert::{Leaf, request};
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ServiceReference;
use pki_certs::Authority;

const HOSTS: [&str; 4] = [
    "pki-operator.pki.svc",
    "Hook.example.com",
    "127.0.0.1",
    "fd00::1",
];

fn authority() -> Arc<Authority> {
    let year = SignedDuration::from_hours(365 * 24);
    Arc::new(Authority::generate("webhook", year, now()).unwrap())
}

fn chain(authority: &Arc<Authority>) -> Vec<CertificateDer<'static>> {
    let request = request(&HOSTS.map(str::to_owned));
    let leaf = Leaf::issue(authority.clone(), &request, now()).unwrap();
    leaf.key.cert.clone()
}

fn at(url: &str, bundle: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        ca_bundle: Some(ByteString(bundle.as_bytes().to_vec())),
        url: Some(url.to_owned()),
        service: None,
    }
}

fn of_service(name: &str, bundle: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        service: Some(ServiceReference {
            name: name.to_owned(),
            namespace: "pki".to_owned(),
            path: Some("/validate".to_owned()),
            port: Some(443),
        }),
        url: None,
        ..at("", bundle)
    }
}

#[test]
fn the_host_is_that_by_which_the_api_server_calls() {
    let authority = authority();
    let (chain, bundle) = (chain(&authority), authority.ca().certificate_pem());
    let other = |host: &str| Err(TrustProblem::OtherHost(host.into()));
    for (client, expected) in [
        (of_service("pki-operator", bundle), Ok(())),
        (of_service("other", bundle), other("other.pki.svc")),
        (at("https://hook.example.com/validate", bundle), Ok(())),
        (at("https://HOOK.example.com:8443", bundle), Ok(())),
        (at("https://127.0.0.1:8443/validate", bundle), Ok(())),
        (at("https://[fd00::1]:8443/validate", bundle), Ok(())),
        (at("https://127.0.0.2/validate", bundle), other("127.0.0.2")),
        (at("https://[fd00::2]/validate", bundle), other("fd00::2")),
        (
            at("https://example.com/validate", bundle),
            other("example.com"),
        ),
        (
            at("https://a..b/", bundle),
            Err(TrustProblem::Host("a..b".into())),
        ),
        (at("/validate", bundle), Err(TrustProblem::NoHost)),
        (at("https://", bundle), Err(TrustProblem::NoHost)),
    ] {
        let host = format!("{:?} {:?}", client.url, client.service);
        assert_eq!(verify(&chain, &client, now()), expected, "{host}");
    }
}

#[test]
fn the_bundle_has_to_hold_the_ca() {
    let (one, other) = (authority(), authority());
    let (chain, pem) = (chain(&one), one.ca().certificate_pem());
    let both = format!("{}{pem}", other.ca().certificate_pem());
    let judge = |bundle: &str| verify(&chain, &at("https://127.0.0.1", bundle), now());
    assert_eq!(judge(pem), Ok(()));
    assert_eq!(judge(&both), Ok(()));
    assert_eq!(
        judge(other.ca().certificate_pem()),
        Err(TrustProblem::UnknownIssuer)
    );
    assert_eq!(judge(""), Err(TrustProblem::NoBundle));
    assert_eq!(judge("nothing"), Err(TrustProblem::Bundle));
    assert_eq!(judge(&pem[..pem.len() / 2]), Err(TrustProblem::Bundle));
    assert_eq!(
        judge(one.private_key_pem().as_str()),
        Err(TrustProblem::Bundle)
    );
    let without = WebhookClientConfig {
        ca_bundle: None,
        ..at("https://127.0.0.1", pem)
    };
    assert_eq!(verify(&chain, &without, now()), Err(TrustProblem::NoBundle));
}

#[test]
fn a_leaf_is_trusted_for_a_day() {
    let authority = authority();
    let (chain, bundle) = (chain(&authority), authority.ca().certificate_pem());
    let client = at("https://127.0.0.1", bundle);
    let day = SignedDuration::from_hours(24);
    assert_eq!(verify(&chain, &client, now() + day), Ok(()));
    let later = verify(&chain, &client, now() + day + SignedDuration::from_secs(2));
    assert!(later.unwrap_err().to_string().contains("expired"));
    assert!(verify(&chain, &client, now() - day).is_err());
}
