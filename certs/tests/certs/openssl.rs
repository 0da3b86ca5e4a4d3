//! OpenSSL as an independent judge, with its strictest settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::Timestamp;
use pki_certs::{Authority, AuthorityError, Leaf};

use crate::fixtures::{BACKDATED, DAY, NINETY_DAYS, authority, date, now, request, root};

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
            .verify(&[], authority.not_after() + DAY)
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
    fs::write(files.path("ca.crt"), authority().certificate_pem()).unwrap();
    files.verify(&[], now()).unwrap_err();
}

#[test]
fn openssl_finds_the_right_authority_among_two_of_the_same_name() {
    let (authority_of_leaf, files) = issued("two-authorities");
    let other = authority();
    let bundle = format!(
        "{}{}",
        other.certificate_pem(),
        authority_of_leaf.certificate_pem()
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
fn openssl_accepts_leaves_of_an_authority_that_was_brought_along() {
    for (kind, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("rsa", &rcgen::PKCS_RSA_SHA256),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        let (certificate, key) = root(algorithm, |_| ());
        let authority = Authority::from_pem(certificate.as_bytes(), key.as_bytes(), now()).unwrap();
        let leaf = authority.issue(&request(), now()).unwrap();
        let files = Files::new(&format!("brought-{kind}"), &authority, &leaf);
        files
            .verify(&["-verify_hostname", "app1.team-a.svc"], now())
            .unwrap();
    }
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
         IP Address:2001:DB8:0:0:0:0:0:1\n",
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

#[test]
fn openssl_prints_the_root_that_was_promised() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new("root", &authority, &leaf);

    let fingerprint = files.print("ca.crt", &["-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim_end().rsplit('=').next().unwrap();
    assert_eq!(
        fingerprint.replace(':', "").to_lowercase(),
        authority.fingerprint()
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

#[test]
fn an_authority_and_key_made_by_openssl_can_sign() {
    for (kind, new_key) in [
        ("sec1", P256),
        ("pkcs1", &["genrsa", "-traditional"][..]),
        ("pkcs8", &["genpkey", "-algorithm", "ed25519"][..]),
    ] {
        let (certificate, key) = root_by_openssl(kind, new_key, &["-subj", "/O=Example/CN=CA"]);
        let now = Timestamp::now();
        let authority = Authority::from_pem(&certificate, &key, now).unwrap();
        assert_eq!(authority.certificate_pem().as_bytes(), certificate);
        assert_eq!(authority.private_key_pem().as_bytes(), key);
        let leaf = authority.issue(&request(), now).unwrap();
        Files::new(&format!("signed-by-{kind}"), &authority, &leaf)
            .verify(&[], now)
            .unwrap();
    }
}

#[test]
fn an_authority_whose_subject_rcgen_cannot_repeat_is_refused() {
    for (kind, subject) in [
        ("repeated", "/DC=com/DC=example/CN=CA"),
        ("multi-valued", "/O=Example+CN=CA"),
    ] {
        let options = ["-multivalue-rdn", "-subj", subject];
        let (certificate, key) = root_by_openssl(kind, P256, &options);
        let error = Authority::from_pem(&certificate, &key, Timestamp::now()).unwrap_err();
        assert_eq!(error, AuthorityError::Subject, "{kind}");
        assert_eq!(
            error.to_string(),
            "the subject of the CA certificate is empty, or has an attribute twice or two \
             together; make one that has a common name, and each attribute once and alone"
        );
    }
}

#[test]
fn an_authority_without_subject_key_identifier_is_refused() {
    let options = ["-subj", "/CN=CA", "-addext", "subjectKeyIdentifier=none"];
    let (certificate, key) = root_by_openssl("no-key-identifier", P256, &options);
    let error = Authority::from_pem(&certificate, &key, Timestamp::now()).unwrap_err();
    assert_eq!(error, AuthorityError::NoSubjectKeyId);
    assert_eq!(
        error.to_string(),
        "the CA certificate has no subjectKeyIdentifier; make one with it, as RFC 5280 requires"
    );
}

const P256: &[&str] = &["ecparam", "-name", "prime256v1", "-genkey"];

fn root_by_openssl(test: &str, new_key: &[&str], options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let folder = folder(&format!("root-{test}"));
    let usage = "keyUsage=critical,keyCertSign,cRLSign";
    let root = [
        "req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-addext", usage,
    ];
    for arguments in [
        [new_key, &["-out", "ca.key"]].concat(),
        [&root[..], options].concat(),
    ] {
        let output = openssl(&folder, &arguments);
        assert!(output.status.success(), "{output:?}");
    }
    let [certificate, key] = ["ca.crt", "ca.key"].map(|file| fs::read(folder.join(file)).unwrap());
    (certificate, key)
}

/// The same key, converted from PKCS#8.
pub(crate) fn sec1(pkcs8: &[u8]) -> Vec<u8> {
    let folder = folder("sec1");
    fs::write(folder.join("pkcs8.key"), pkcs8).unwrap();
    let output = openssl(&folder, &["pkey", "-in", "pkcs8.key", "-traditional"]);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn issued(test: &str) -> (Authority, Files) {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let files = Files::new(test, &authority, &leaf);
    (authority, files)
}

/// A folder with `tls.crt`, `tls.key` and `ca.crt`.
struct Files(PathBuf);

impl Files {
    fn new(test: &str, authority: &Authority, leaf: &Leaf) -> Self {
        let files = Self(folder(test));
        fs::write(files.path("tls.crt"), &leaf.chain_pem).unwrap();
        fs::write(files.path("tls.key"), leaf.private_key_pem.as_bytes()).unwrap();
        fs::write(files.path("ca.crt"), authority.certificate_pem()).unwrap();
        files
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn verify(&self, options: &[&str], at: Timestamp) -> Result<(), String> {
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

    fn print(&self, certificate: &str, what: &[&str]) -> String {
        let output = openssl(
            &self.0,
            &[&["x509", "-noout", "-in", certificate], what].concat(),
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("openssl does not start ({error}); apt-get install openssl"))
}
