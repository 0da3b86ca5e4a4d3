use super::*;
use crate::util::time::tests::now;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage};

fn authority() -> Authority {
    Authority::generate("Example CA", SignedDuration::from_hours(87_600), now()).unwrap()
}

fn request() -> LeafRequest {
    LeafRequest {
        common_name: Some("app1".into()),
        former_common_name: None,
        dns_names: vec!["app1.ns.svc".into()],
        ip_addresses: vec![],
        uris: vec![],
        usages: vec![Usage::ServerAuth],
        duration: SignedDuration::from_hours(2160),
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    }
}

fn issued(authority: &Authority) -> [(&'static str, String); 3] {
    let leaf = authority.issue(&request(), now()).unwrap();
    [
        ("tls.crt", leaf.chain_pem.clone()),
        ("tls.key", leaf.private_key_pem.as_str().to_owned()),
        ("ca.crt", authority.ca().root_pem().to_owned()),
    ]
}

fn stored(files: &[(&str, String)]) -> Secret {
    let files = files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), ByteString(content.clone().into_bytes())));
    Secret {
        data: Some(files.collect()),
        ..Secret::default()
    }
}

#[test]
fn a_valid_secret_is_shown_in_full_but_for_the_key() {
    let files = issued(&authority());
    let page = render(&secret(&stored(&files), now()), now());
    for expected in [
        "tls.crt, certificate 1 of 1:\n  subject  CN=app1\n  issuer   CN=Example CA",
        "  names    app1.ns.svc\n  key      ECDSA P-256\n  usages   server authentication\n  serial   ",
        "  valid    2029-12-31T23:55:00Z to 2030-04-01T00:00:00Z, 90d left\n  SHA-256  ",
        "ca.crt, certificate 1 of 1:\n",
        "  usages   signing certificates\n",
        "the private key in tls.key is that of the certificate\nclients that trust ca.crt accept the certificate\n",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    let key: Vec<_> = files[1].1.lines().collect();
    assert!(key.iter().all(|line| !page.contains(line)), "{page}");
}

#[test]
fn every_fault_is_shown() {
    let (ours, theirs) = (authority(), authority());
    let [certificate, key, root] = issued(&ours);
    let [_, other_key, other_root] = issued(&theirs);
    for (files, at, expected) in [
        (
            vec![certificate.clone(), other_key, root.clone()],
            0,
            "the private key in tls.key is NOT that of the certificate",
        ),
        (
            vec![certificate.clone(), key.clone(), other_root],
            0,
            "clients that trust ca.crt do NOT accept the certificate: ",
        ),
        (
            vec![certificate.clone(), root.clone()],
            0,
            "tls.key is missing",
        ),
        (
            vec![
                certificate.clone(),
                ("tls.key", "torn".into()),
                root.clone(),
            ],
            0,
            "the private key in tls.key cannot be read",
        ),
        (vec![], 0, "tls.crt: no certificate"),
        (
            vec![("tls.crt", "-----BEGIN CERTIFICATE-----\n?\n".into())],
            0,
            "tls.crt: cannot be read",
        ),
        (
            vec![certificate.clone(), key.clone(), root.clone()],
            2400,
            "EXPIRED 10d ago",
        ),
        (vec![certificate, key, root], -24, "begins in "),
    ] {
        let now = now() + SignedDuration::from_hours(at);
        let page = render(&secret(&stored(&files), now), now);
        assert!(page.contains(expected), "{expected}\n{page}");
    }
}

#[test]
fn a_bounded_part_of_a_hostile_certificate_is_shown() {
    let mut forged = rcgen::CertificateParams::new(
        (0..2500)
            .map(|n| format!("n{n}.{}.example.com", "a".repeat(60)))
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let subject = "CN\u{1b}[2J\u{202e}".repeat(2000);
    forged
        .distinguished_name
        .push(rcgen::DnType::CommonName, subject);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = forged.self_signed(&key).unwrap().pem();
    let secret = stored(&[("tls.crt", certificate.repeat(40))]);
    let page = render(&self::secret(&secret, now()), now());
    assert!(page.contains(" and 2480 more\n"), "{page}");
    assert!(page.contains("certificate 20 of 40") && page.contains("and 20 more certificates\n"));
    assert!(page.len() < 200_000, "{}", page.len());
    assert!(
        page.lines()
            .all(|line| line.chars().all(crate::util::text::is_plain))
    );
    let lines = brief(&secret, now());
    assert!(lines[0].ends_with(" and 2495 more"), "{lines:?}");
    assert!(
        lines.contains(&"and 35 more certificates".to_owned()),
        "{lines:?}"
    );
    assert!(lines.concat().len() < 20_000, "{}", lines.concat().len());
}

#[test]
fn a_certificate_without_a_common_name_is_shown_with_its_names() {
    let authority = authority();
    let request = LeafRequest {
        common_name: None,
        ..request()
    };
    let leaf = authority.issue(&request, now()).unwrap();
    let page = render(&pem("f.pem", leaf.chain_pem.as_bytes(), now()), now());
    let expected = "  subject  none; the names count\n  issuer   CN=Example CA";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn a_file_is_taken_for_a_chain_with_its_root_and_key_if_they_are_in_it() {
    let [certificate, key, root] = issued(&authority());
    let page = |text: String| render(&pem("f.pem", text.as_bytes(), now()), now());
    let full = page(format!("{}{}{}", certificate.1, key.1, root.1));
    assert!(full.contains("f.pem, certificate 2 of 2"), "{full}");
    assert!(
        full.contains("the private key in f.pem is that of the certificate"),
        "{full}"
    );
    assert!(full.contains("accept the certificate"), "{full}");
    let alone = page(certificate.1);
    assert!(!alone.contains("private key"), "{alone}");
    assert!(page("nothing".into()).contains("f.pem: no certificate"));
}
