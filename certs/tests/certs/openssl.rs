//! OpenSSL as an independent judge, with its strictest settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::Timestamp;
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, Leaf, LeafRequest, Usage};

use crate::fixtures::{BACKDATED, DAY, NINETY_DAYS, Path as CaPath, authority, date, now, request};

#[test]
fn openssl_accepts_a_leaf_for_each_of_its_names_as_server_and_client() {
    let (authority, files) = issued("accepts");
    let now = now();
    for purpose in ["sslserver", "sslclient"] {
        for name in ["app1.team-a.svc", "app1.team-a.svc.cluster.local"] {
            files
                .verify(&["-purpose", purpose, "-verify_hostname", name], now)
                .unwrap();
        }
        for address in ["10.0.0.1", "2001:db8::1"] {
            files
                .verify(&["-purpose", purpose, "-verify_ip", address], now)
                .unwrap();
        }
    }
    assert!(
        files
            .verify(&[], authority.ca().not_after() + DAY)
            .unwrap_err()
            .contains("expired")
    );
}

#[test]
fn openssl_refuses_a_leaf_for_another_name() {
    let (_, files) = issued("other-name");
    let refusal = files
        .verify(&["-verify_hostname", "app2.team-a.svc"], now())
        .unwrap_err();
    assert!(refusal.contains("hostname mismatch"), "{refusal}");
}

#[test]
fn openssl_refuses_a_leaf_under_another_authority_of_the_same_name() {
    let (_, files) = issued("other-authority");
    fs::write(files.path("ca.crt"), authority().ca().certificate_pem()).unwrap();
    files.verify(&[], now()).unwrap_err();
}

#[test]
fn openssl_finds_the_right_authority_among_two_of_the_same_name() {
    let (authority_of_leaf, files) = issued("two-authorities");
    let other = authority();
    let bundle = format!(
        "{}{}",
        other.ca().certificate_pem(),
        authority_of_leaf.ca().certificate_pem()
    );
    fs::write(files.path("ca.crt"), bundle).unwrap();
    files.verify(&[], now()).unwrap();
}

#[test]
fn openssl_agrees_on_when_a_leaf_begins_and_ends() {
    let (_, files) = issued("validity");
    let (first, last) = (now() - BACKDATED, now() + NINETY_DAYS);
    let second = jiff::SignedDuration::from_secs(1);
    files.verify(&[], first).unwrap();
    files.verify(&[], last - second).unwrap();
    assert!(
        files
            .verify(&[], first - second)
            .unwrap_err()
            .contains("not yet valid")
    );
    assert!(
        files
            .verify(&[], last + second)
            .unwrap_err()
            .contains("expired")
    );
}

#[test]
fn openssl_accepts_leaves_that_end_after_2050() {
    let now: Timestamp = "2049-12-31T23:00:00Z".parse().unwrap();
    let authority = Authority::generate("Example CA", NINETY_DAYS * 4, now).unwrap();
    let leaf = authority.issue(&request(), now).unwrap();
    Files::new("after-2050", &authority, &leaf)
        .verify(&[], now + DAY)
        .unwrap();
}

#[test]
fn openssl_prints_the_serial_subject_and_extensions_that_were_promised() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new("prints", &authority, &leaf);

    let serial = files.print("tls.crt", &["-serial", "-subject", "-nameopt", "RFC2253"]);
    assert_eq!(serial, format!("serial={}\nsubject=CN=app1\n", leaf.serial));

    let extensions = files.print("tls.crt", &["-text"]);
    for promised in [
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication\n",
        "DNS:app1.team-a.svc, DNS:app1.team-a.svc.cluster.local, IP Address:10.0.0.1, \
         IP Address:2001:DB8:0:0:0:0:0:1, URI:spiffe://example.com/ns/team-a/sa/app1\n",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        "Signature Algorithm: ecdsa-with-SHA256",
    ] {
        assert!(
            extensions.contains(promised),
            "{promised:?} is not in\n{extensions}"
        );
    }
}

/// As it is where the name of the service is too long for a common name (RFC 5280, 4.1.2.6).
#[test]
fn openssl_accepts_a_leaf_without_a_common_name_by_its_other_names() {
    let authority = CaPath::of(1, |_, _| ()).read().unwrap();
    let names = vec![format!("{}.{}.svc", "a".repeat(63), "b".repeat(63))];
    for usages in USAGES {
        let request = LeafRequest {
            common_name: None,
            dns_names: names.clone(),
            usages: usages.to_vec(),
            ..request()
        };
        let leaf = authority.issue(&request, now()).unwrap();
        let files = Files::new(&format!("nameless-{usages:?}"), &authority, &leaf);
        files.check_purposes(usages);
        let options = ["-untrusted", "chain.crt", "-verify_hostname"];
        files
            .verify(&[&options[..], &[&names[0]]].concat(), now())
            .unwrap();
        let other = [&options[..], &["app2.team-a.svc"]].concat();
        let refusal = files.verify(&other, now()).unwrap_err();
        assert!(refusal.contains("hostname mismatch"), "{refusal}");
        let printed = files.print("tls.crt", &["-subject", "-nameopt", "RFC2253"]);
        assert_eq!(printed, "subject=\n");
        let printed = files.print("tls.crt", &["-text"]);
        assert!(
            printed.contains("Alternative Name: critical\n"),
            "{printed}"
        );
    }
}

#[test]
fn openssl_prints_the_root_that_was_promised() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new("root", &authority, &leaf);

    let fingerprint = files.print("ca.crt", &["-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim_end().rsplit('=').next().unwrap();
    assert_eq!(
        fingerprint.replace(':', "").to_lowercase(),
        authority.ca().fingerprint()
    );

    let issuer = files.print("ca.crt", &["-issuer", "-nameopt", "RFC2253"]);
    assert!(issuer.ends_with(",CN=Example CA\n"), "{issuer}");

    let extensions = files.print("ca.crt", &["-text"]);
    for promised in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(
            extensions.contains(promised),
            "{promised:?} is not in\n{extensions}"
        );
    }
}

#[test]
fn openssl_reads_the_private_keys() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new("keys", &authority, &leaf);
    fs::write(files.path("ca.key"), authority.private_key_pem().as_str()).unwrap();
    for (certificate, key) in [("tls.crt", "tls.key"), ("ca.crt", "ca.key")] {
        let of_key = openssl(&files.0, &["pkey", "-in", key, "-pubout"]);
        assert!(of_key.status.success(), "{of_key:?}");
        let of_certificate = files.print(certificate, &["-pubkey"]);
        assert_eq!(String::from_utf8(of_key.stdout).unwrap(), of_certificate);
    }
}

/// Another encoding, another usage and another key each time: all of them in all combinations.
#[test]
fn openssl_accepts_every_kind_of_leaf_below_an_intermediate_authority() {
    let authority = CaPath::of(1, |_, _| ()).read().unwrap();
    for key in KEYS {
        for key_encoding in [KeyEncoding::Pkcs8, KeyEncoding::Traditional] {
            for usages in USAGES {
                let test = format!("{key}-{key_encoding:?}-{usages:?}");
                let request = LeafRequest {
                    key,
                    key_encoding,
                    usages: usages.to_vec(),
                    ..request()
                };
                let leaf = authority.issue(&request, now()).unwrap();
                let files = Files::new(&test, &authority, &leaf);
                files.check_key(key, key_encoding);
                files.check_purposes(usages);
            }
        }
    }
}

#[test]
fn openssl_follows_the_longest_path() {
    let authority = CaPath::of(6, |_, _| ()).read().unwrap();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new("longest", &authority, &leaf);
    files.check_purposes(&request().usages);
    let refusal = files.verify(&[], now()).unwrap_err();
    assert!(refusal.contains("unable to get local issuer"), "{refusal}");
}

#[test]
fn openssl_finds_the_curve_inside_a_traditional_key() {
    let request = LeafRequest {
        key_encoding: KeyEncoding::Traditional,
        ..request()
    };
    let authority = authority();
    let leaf = authority.issue(&request, now()).unwrap();
    let files = Files::new("curve", &authority, &leaf);
    let printed = openssl(&files.0, &["asn1parse", "-in", "tls.key"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("OBJECT            :prime256v1"),
        "{printed}"
    );
}

const KEYS: [KeyAlgorithm; 6] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Rsa2048,
    KeyAlgorithm::Rsa3072,
    KeyAlgorithm::Rsa4096,
    KeyAlgorithm::Ed25519,
];

const USAGES: [&[Usage]; 3] = [
    &[Usage::ServerAuth],
    &[Usage::ClientAuth],
    &[Usage::ServerAuth, Usage::ClientAuth],
];

fn issued(test: &str) -> (Authority, Files) {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new(test, &authority, &leaf);
    (authority, files)
}

/// A folder with `tls.crt`, `tls.key` and `ca.crt`, and with what follows the leaf in `chain.crt`.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn new(test: &str, authority: &Authority, leaf: &Leaf) -> Self {
        let files = Self(folder(test));
        fs::write(files.path("tls.crt"), &leaf.chain_pem).unwrap();
        fs::write(files.path("tls.key"), leaf.private_key_pem.as_bytes()).unwrap();
        fs::write(files.path("chain.crt"), authority.ca().chain_pem()).unwrap();
        fs::write(files.path("ca.crt"), authority.ca().root_pem()).unwrap();
        files
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn verify(&self, options: &[&str], at: Timestamp) -> Result<(), String> {
        let at = date(at).unix_timestamp().to_string();
        let trusted = [
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.crt",
            "-no-CApath",
            "-no-CAstore",
        ];
        let arguments = [&trusted[..], &["-attime", &at], options, &["tls.crt"]].concat();
        let output = openssl(&self.0, &arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    }

    /// Good for these usages, and for nothing else.
    fn check_purposes(&self, usages: &[Usage]) {
        for (usage, purpose) in [
            (Usage::ServerAuth, "sslserver"),
            (Usage::ClientAuth, "sslclient"),
        ] {
            let options = ["-untrusted", "chain.crt", "-purpose", purpose];
            let verified = self.verify(&options, now());
            assert_eq!(verified.is_ok(), usages.contains(&usage), "{verified:?}");
        }
    }

    /// The key is sound, that of the certificate, and written the way OpenSSL itself writes it.
    fn check_key(&self, algorithm: KeyAlgorithm, encoding: KeyEncoding) {
        let traditional = encoding == KeyEncoding::Traditional;
        let mut arguments = vec!["pkey", "-in", "tls.key", "-check"];
        if traditional && algorithm != KeyAlgorithm::Ed25519 {
            arguments.push("-traditional");
        }
        let output = openssl(&self.0, &arguments);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let ours = fs::read_to_string(self.path("tls.key")).unwrap();
        assert_eq!(
            said.replace("Key is valid\n", ""),
            ours,
            "{algorithm} {encoding}"
        );

        let public = openssl(&self.0, &["pkey", "-in", "tls.key", "-pubout"]);
        let of_certificate = self.print("tls.crt", &["-pubkey"]);
        assert_eq!(String::from_utf8(public.stdout).unwrap(), of_certificate);
    }

    pub(crate) fn print(&self, certificate: &str, what: &[&str]) -> String {
        let output = openssl(
            &self.0,
            &[&["x509", "-noout", "-in", certificate], what].concat(),
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("openssl does not start ({error}); apt-get install openssl"))
}
