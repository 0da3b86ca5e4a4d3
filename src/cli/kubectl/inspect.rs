//! `kubectl pki inspect`: what is in a Secret or a PEM file. The private key is compared and never
//! shown.

use super::words;
use crate::k8s::secret::file;
use crate::util::text::{first_of, printable, sentence};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::describe::{self, Description};
use std::fmt::Write as _;

/// What there is to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Files and what is in them; `None` where that cannot be read.
    files: Vec<(String, Option<Vec<Description>>)>,
    /// Whether the key is that of the certificate, in a sentence.
    key: String,
    /// Whether clients accept the certificate, in a sentence.
    chain: String,
}

/// What is in a TLS Secret.
pub fn secret(secret: &Secret, now: Timestamp) -> Inspection {
    let (certificate, roots) = (file(secret, "tls.crt"), file(secret, "ca.crt"));
    let files = [("tls.crt", certificate), ("ca.crt", roots)];
    Inspection {
        files: files
            .map(|(name, pem)| (name.to_owned(), described(pem)))
            .to_vec(),
        key: key("tls.key", certificate, file(secret, "tls.key")),
        chain: chain(certificate, roots, "ca.crt", now),
    }
}

/// What is in a PEM file: a chain, the first certificate of which is looked at, with or without CAs
/// and a key.
pub fn pem(name: &str, pem: &[u8], now: Timestamp) -> Inspection {
    let holds_key = pem.windows(KEY.len()).any(|part| part == KEY);
    let certificates = described(pem);
    let has_ca = certificates.iter().flatten().any(|it| it.is_ca);
    Inspection {
        files: vec![(name.to_owned(), certificates)],
        key: if holds_key {
            key(name, pem, pem)
        } else {
            String::new()
        },
        chain: if has_ca {
            chain(pem, pem, "a CA of this file", now)
        } else {
            String::new()
        },
    }
}

const KEY: &[u8] = b"PRIVATE KEY-----";

/// The number of names, and of certificates, that are shown of a file. Others may have written it.
const MAX_SHOWN: usize = 20;
/// The number of both on a page that has other parts.
const MAX_SHOWN_BRIEFLY: usize = 5;

fn described(pem: &[u8]) -> Option<Vec<Description>> {
    describe::certificates(pem)
}

fn key(name: &str, certificate: &[u8], key: &[u8]) -> String {
    let name = printable(name);
    match describe::key_matches(certificate, key) {
        _ if key.is_empty() => format!("{name} is missing"),
        Some(true) => format!("the private key in {name} is that of the certificate"),
        Some(false) => format!("the private key in {name} is NOT that of the certificate"),
        None => format!(
            "the private key in {name} cannot be read, or there is no certificate to compare it with"
        ),
    }
}

fn chain(chain: &[u8], roots: &[u8], name: &str, now: Timestamp) -> String {
    if chain.is_empty() {
        return String::new();
    }
    match describe::check_chain(chain, roots, now) {
        Ok(()) => format!("clients that trust {name} accept the certificate"),
        Err(fault) => format!(
            "clients that trust {name} do NOT accept the certificate: {}",
            sentence(&fault.to_string())
        ),
    }
}

/// The page.
pub fn render(inspection: &Inspection, now: Timestamp) -> String {
    let mut page = String::new();
    for (name, certificates) in &inspection.files {
        page += &file_lines(name, certificates.as_deref(), now);
    }
    for sentence in [&inspection.key, &inspection.chain] {
        if !sentence.is_empty() {
            page = page + sentence + "\n";
        }
    }
    page
}

fn file_lines(name: &str, certificates: Option<&[Description]>, now: Timestamp) -> String {
    let name = printable(name);
    match certificates {
        None => format!("{name}: cannot be read as certificates in PEM\n"),
        Some([]) => format!("{name}: no certificate\n"),
        Some(certificates) => {
            let mut lines = String::new();
            for (index, certificate) in certificates.iter().enumerate().take(MAX_SHOWN) {
                writeln!(
                    lines,
                    "{name}, certificate {} of {}:",
                    index + 1,
                    certificates.len()
                )
                .expect("writing to a string does not fail");
                lines += &certificate_lines(certificate, now);
            }
            lines + &more_certificates(certificates, MAX_SHOWN)
        }
    }
}

fn more_certificates(certificates: &[Description], shown: usize) -> String {
    match certificates.len().saturating_sub(shown) {
        0 => String::new(),
        more => format!(
            "and {}\n",
            words::count(more, "more certificate", "more certificates")
        ),
    }
}

/// A subject. It is empty where the names are all that a certificate has, as where they are too
/// long for a common name.
fn subject(written: &str) -> String {
    match written {
        "" => "none; the names count".to_owned(),
        written => printable(written),
    }
}

fn certificate_lines(certificate: &Description, now: Timestamp) -> String {
    let list = |items: &[String], none: &str| match items {
        [] => none.to_owned(),
        some => first_of(some, MAX_SHOWN),
    };
    let usages = if certificate.is_ca {
        "signing certificates"
    } else {
        "any"
    };
    let rows = [
        ("subject", subject(&certificate.subject)),
        ("issuer", printable(&certificate.issuer)),
        ("names", list(&certificate.names, "none")),
        ("key", printable(&certificate.key)),
        ("usages", list(&certificate.usages, usages)),
        ("serial", printable(&certificate.serial)),
        ("valid", validity(certificate, now)),
        ("SHA-256", certificate.fingerprint.clone()),
    ];
    rows.iter().fold(String::new(), |lines, (name, value)| {
        lines + &format!("  {name:<9}{value}\n")
    })
}

/// From when until when, and how much of it is left.
fn validity(certificate: &Description, now: Timestamp) -> String {
    let Description {
        not_before,
        not_after,
        ..
    } = certificate;
    let left = if now < *not_before {
        format!("begins in {}", words::until(*not_before, now))
    } else if now > *not_after {
        format!("EXPIRED {}", words::until(*not_after, now))
    } else {
        format!("{} left", words::until(*not_after, now))
    };
    format!("{not_before} to {not_after}, {left}")
}

/// What is in a TLS Secret in a few lines, as a page about its Pki shows it.
pub fn brief(secret: &Secret, now: Timestamp) -> Vec<String> {
    let inspection = self::secret(secret, now);
    let certificates = match &inspection.files[0].1 {
        Some(certificates) if certificates.is_empty() => {
            return vec!["without a certificate".into()];
        }
        Some(certificates) => certificates.as_slice(),
        None => return vec!["tls.crt cannot be read".into()],
    };
    let mut lines = Vec::new();
    for certificate in certificates.iter().take(MAX_SHOWN_BRIEFLY) {
        lines.push(match certificate.names.as_slice() {
            [] => "certificate of a CA between it and the root".to_owned(),
            names => format!("certificate for {}", first_of(names, MAX_SHOWN_BRIEFLY)),
        });
        let subject = subject(&certificate.subject);
        let (issuer, serial) = (
            printable(&certificate.issuer),
            printable(&certificate.serial),
        );
        lines.push(format!(
            "  subject {subject}, issuer {issuer}, serial {serial}"
        ));
        lines.push(format!("  valid {}", validity(certificate, now)));
    }
    let more = more_certificates(certificates, MAX_SHOWN_BRIEFLY);
    lines.extend(more.lines().map(str::to_owned));
    lines.extend([inspection.key, inspection.chain]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use k8s_openapi::ByteString;
    use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage};

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

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
    fn a_sound_secret_is_shown_in_full_but_for_the_key() {
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
    fn what_is_wrong_is_said() {
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
    fn of_a_hostile_certificate_a_bounded_part_is_shown() {
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
        assert!(
            page.contains("certificate 20 of 40") && page.contains("and 20 more certificates\n")
        );
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
}
