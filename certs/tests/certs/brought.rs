//! Authorities that platform teams bring along, made with OpenSSL among others.

use std::fs;

use jiff::Timestamp;
use pki_certs::{Authority, AuthorityError, PathMember};

use crate::fixtures::{now, request, root};
use crate::openssl::{Files, folder, openssl};

#[test]
fn openssl_accepts_leaves_of_an_authority_that_was_brought_along() {
    for (kind, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("rsa", &rcgen::PKCS_RSA_SHA256),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        let (certificate, key) = root(algorithm, |_| ());
        let authority =
            Authority::from_pem(certificate.as_bytes(), b"", key.as_bytes(), now()).unwrap();
        let leaf = authority.issue(&request(), now()).unwrap();
        let files = Files::new(&format!("brought-{kind}"), &authority, &leaf);
        files
            .verify(&["-verify_hostname", "app1.team-a.svc"], now())
            .unwrap();
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
        let authority = Authority::from_pem(&certificate, b"", &key, now).unwrap();
        assert_eq!(authority.ca().certificate_pem().as_bytes(), certificate);
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
        ("teletex", "/CN=B\u{fc}cher"),
    ] {
        let teletex = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nstring_mask = MASK:4\n\
            [dn]\n[v3]\nsubjectKeyIdentifier = hash\nbasicConstraints = critical, CA:TRUE\n";
        fs::write(folder(&format!("root-{kind}")).join("req.cnf"), teletex).unwrap();
        let options = [
            "-config",
            "req.cnf",
            "-utf8",
            "-multivalue-rdn",
            "-subj",
            subject,
        ];
        let (certificate, key) = root_by_openssl(kind, P256, &options);
        let error = Authority::from_pem(&certificate, b"", &key, Timestamp::now()).unwrap_err();
        assert_eq!(error, AuthorityError::Subject, "{kind}");
        assert_eq!(error.to_string(), crate::authority::SUBJECT);
    }
}

#[test]
fn an_authority_without_subject_key_identifier_is_refused() {
    let options = ["-subj", "/CN=CA", "-addext", "subjectKeyIdentifier=none"];
    let (certificate, key) = root_by_openssl("no-key-identifier", P256, &options);
    let error = Authority::from_pem(&certificate, b"", &key, Timestamp::now()).unwrap_err();
    assert_eq!(error, AuthorityError::NoSubjectKeyId);
    assert_eq!(
        error.to_string(),
        "the CA certificate has no subjectKeyIdentifier; make one with it, as RFC 5280 requires"
    );
}

#[test]
fn a_path_and_key_made_by_openssl_can_sign() {
    for (kind, new_key) in [
        ("p384", &["ecparam", "-name", "secp384r1", "-genkey"][..]),
        ("p521", &["ecparam", "-name", "secp521r1", "-genkey"][..]),
        ("rsa", &["genpkey", "-algorithm", "rsa"][..]),
    ] {
        let (chain, root, key) = path_by_openssl(kind, new_key, "-sha512");
        let now = Timestamp::now();
        let authority = Authority::from_pem(&chain, &root, &key, now).unwrap();
        let leaf = authority.issue(&request(), now).unwrap();
        let files = Files::new(&format!("signed-below-{kind}"), &authority, &leaf);
        files.verify(&["-untrusted", "chain.crt"], now).unwrap();
    }
}

#[test]
fn an_authority_signed_with_sha1_is_refused() {
    let (chain, root, key) = path_by_openssl("sha1", &["genpkey", "-algorithm", "rsa"], "-sha1");
    let error = Authority::from_pem(&chain, &root, &key, Timestamp::now()).unwrap_err();
    let which = PathMember::Ca;
    assert_eq!(error, AuthorityError::Sha1(which));
    assert_eq!(
        error.to_string(),
        "the CA certificate is signed with SHA-1, which clients refuse; \
         have it signed with SHA-256"
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

/// A root with a key of any kind, and an ECDSA P-256 authority below it.
fn path_by_openssl(test: &str, root_key: &[&str], hash: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let folder = folder(&format!("path-{test}"));
    let usage = "keyUsage=critical,keyCertSign,cRLSign";
    let constraints = "basicConstraints=critical,CA:TRUE,pathlen:0";
    for arguments in [
        &[root_key, &["-out", "root.key"]].concat()[..],
        &[
            "req", "-x509", hash, "-key", "root.key", "-out", "root.crt", "-subj", "/CN=Root",
            "-addext", usage,
        ],
        &[P256, &["-out", "ca.key"]].concat(),
        &[
            "req",
            "-x509",
            hash,
            "-key",
            "ca.key",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=CA",
            "-addext",
            usage,
            "-addext",
            constraints,
            "-CA",
            "root.crt",
            "-CAkey",
            "root.key",
        ],
    ] {
        let output = openssl(&folder, arguments);
        assert!(output.status.success(), "{output:?}");
    }
    let read = |file: &str| fs::read(folder.join(file)).unwrap();
    (read("ca.crt"), read("root.crt"), read("ca.key"))
}
