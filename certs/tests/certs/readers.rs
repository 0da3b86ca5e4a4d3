//! OpenSSL and Java as the readers that keystores are written for.

use std::fs;
use std::path::Path;
use std::process::Command;

use pki_certs::formats::{KeystoreKind, key_der, truststore};
use pki_certs::{KeyAlgorithm, Leaf, Trust};

use crate::fixtures::authority;
use crate::formats::{KEYS, KINDS, PASSWORD, bundle, holds, leaf, store};
use crate::openssl::{folder, openssl};

#[test]
fn openssl_reads_the_key_and_the_chain_of_pkcs12() {
    for key in KEYS {
        let leaf = leaf(key);
        let folder = folder(&format!("pkcs12-{key}"));
        fs::write(folder.join("store"), store(KeystoreKind::Pkcs12, &leaf)).unwrap();
        assert_eq!(key_in(&folder, "store"), key_of(&folder, &leaf));
        let certificates = pkcs12_by_openssl(&folder, &["-in", "store", "-nokeys"]);
        assert_eq!(ders(&certificates), ders(&leaf.chain_pem));
    }
}

#[test]
fn openssl_reads_the_roots_of_a_pkcs12_truststore() {
    let (one, other) = (authority(), authority());
    let trust = Trust::of([one.ca(), other.ca()]);
    let folder = folder("pkcs12-trust");
    let store = truststore(KeystoreKind::Pkcs12, &trust, PASSWORD).unwrap();
    fs::write(folder.join("store"), store).unwrap();
    let certificates = pkcs12_by_openssl(&folder, &["-in", "store", "-nokeys"]);
    assert_eq!(ders(&certificates), ders(trust.pem()));
}

#[test]
fn openssl_names_the_algorithms_of_pkcs12() {
    let folder = folder("pkcs12-algorithms");
    let store = store(KeystoreKind::Pkcs12, &leaf(KeyAlgorithm::EcdsaP256));
    fs::write(folder.join("store"), store).unwrap();
    let said = pkcs12_by_openssl(&folder, &["-in", "store", "-info", "-noout"]);
    assert!(said.contains("MAC: sha256, Iteration 2048"), "{said}");
    let cipher = "PBES2, PBKDF2, AES-256-CBC, Iteration 2048, PRF hmacWithSHA256";
    assert_eq!(said.matches(cipher).count(), 2, "{said}");
}

#[test]
fn openssl_reads_the_key_without_pem() {
    for key in KEYS {
        let leaf = leaf(key);
        let folder = folder(&format!("key-der-{key}"));
        let der = key_der(&bundle(&leaf)).unwrap();
        fs::write(folder.join("key.der"), &*der).unwrap();
        let printed = openssl(&folder, &["pkey", "-inform", "DER", "-in", "key.der"]);
        assert_eq!(printed.stdout, key_of(&folder, &leaf).into_bytes());
    }
}

#[test]
#[ignore = "needs keytool: apt-get install default-jre-headless"]
fn keytool_reads_the_chain_of_either_store() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    for kind in KINDS {
        let folder = folder(&format!("keytool-list-{kind:?}"));
        fs::write(folder.join("store"), store(kind, &leaf)).unwrap();
        let said = keytool(&folder, &["-list", "-rfc", "-keystore", "store"]);
        for promised in [
            "contains 1 entry\n",
            "Alias name: app1\n",
            "Entry type: PrivateKeyEntry\n",
        ] {
            assert!(said.contains(promised), "{promised:?} is not in\n{said}");
        }
        assert_eq!(ders(&said), ders(&leaf.chain_pem));
    }
}

/// Java decrypts the key, understands it, and writes it anew, for OpenSSL to compare.
#[test]
#[ignore = "needs keytool: apt-get install default-jre-headless"]
fn java_reads_the_key_of_either_store() {
    for key in KEYS {
        let leaf = leaf(key);
        for kind in KINDS {
            let folder = folder(&format!("java-{key}-{kind:?}"));
            fs::write(folder.join("store"), store(kind, &leaf)).unwrap();
            // Left from the last run, it would be added to.
            let _ = fs::remove_file(folder.join("copy"));
            let from = ["-importkeystore", "-srckeystore", "store"];
            let to = ["-destkeystore", "copy", "-deststoretype", "PKCS12"];
            let passwords = ["-srcstorepass", PASSWORD, "-deststorepass", PASSWORD];
            keytool_alone(&folder, &[&from[..], &to, &passwords].concat());
            assert_eq!(key_in(&folder, "copy"), key_of(&folder, &leaf));
        }
    }
}

#[test]
#[ignore = "needs keytool: apt-get install default-jre-headless"]
fn java_trusts_each_root_of_either_truststore() {
    let (one, other) = (authority(), authority());
    let trust = Trust::of([one.ca(), other.ca()]);
    for kind in KINDS {
        let folder = folder(&format!("keytool-trust-{kind:?}"));
        let store = truststore(kind, &trust, PASSWORD).unwrap();
        fs::write(folder.join("store"), store).unwrap();
        let said = keytool(&folder, &["-list", "-rfc", "-keystore", "store"]);
        assert!(said.contains("contains 2 entries\n"), "{said}");
        let trusted = said.matches("Entry type: trustedCertEntry\n").count();
        assert_eq!(trusted, 2, "{said}");
        for (alias, root) in [("ca", one.ca()), ("ca-2", other.ca())] {
            let entry = said.split("Alias name: ").find_map(|entry| {
                let (name, entry) = entry.split_once('\n')?;
                (name == alias).then_some(entry)
            });
            assert_eq!(ders(entry.unwrap()), ders(root.root_pem()));
        }
    }
}

/// A PKCS#12 file says itself how much work opening it is, and Java asks for more than was written.
/// A file that needs anything else is not opened: it is replaced. A JKS file asks for
/// nothing.
#[test]
#[ignore = "needs keytool: apt-get install default-jre-headless"]
fn of_the_stores_that_java_wrote_anew_only_jks_holds() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    for (kind, expected) in [(KeystoreKind::Pkcs12, false), (KeystoreKind::Jks, true)] {
        let folder = folder(&format!("rewritten-{kind:?}"));
        fs::write(folder.join("store"), store(kind, &leaf)).unwrap();
        let rename = ["-changealias", "-keystore", "store"];
        let names = ["-alias", "app1", "-destalias", "app2"];
        keytool(&folder, &[&rename[..], &names].concat());
        let rewritten = fs::read(folder.join("store")).unwrap();
        assert_eq!(holds(kind, &rewritten, &leaf), expected, "{kind:?}");
    }
}

/// The certificates in a text, whatever stands around them.
fn ders(text: &str) -> Vec<Vec<u8>> {
    let found = pem::parse_many(text).unwrap();
    assert!(!found.is_empty(), "{text}");
    found.into_iter().map(pem::Pem::into_contents).collect()
}

/// As OpenSSL writes it.
fn key_of(folder: &Path, leaf: &Leaf) -> String {
    fs::write(folder.join("tls.key"), leaf.private_key_pem.as_bytes()).unwrap();
    let printed = openssl(folder, &["pkey", "-in", "tls.key"]);
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).unwrap()
}

fn key_in(folder: &Path, store: &str) -> String {
    let text = pkcs12_by_openssl(folder, &["-in", store, "-nocerts", "-nodes"]);
    let end = "-----END PRIVATE KEY-----\n";
    let (start, end) = (
        text.find("-----BEGIN").unwrap(),
        text.find(end).unwrap() + end.len(),
    );
    text[start..end].to_owned()
}

fn pkcs12_by_openssl(folder: &Path, options: &[&str]) -> String {
    let password = format!("pass:{PASSWORD}");
    let output = openssl(
        folder,
        &[&["pkcs12", "-passin", &password], options].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn keytool(folder: &Path, arguments: &[&str]) -> String {
    keytool_alone(folder, &[arguments, &["-storepass", PASSWORD]].concat())
}

fn keytool_alone(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("keytool")
        // In words to look for, and without warming up for longer than it works.
        .args(["-J-Duser.language=en", "-J-XX:TieredStopAtLevel=1"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("keytool does not start ({error}); apt-get install default-jre-headless")
        });
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
