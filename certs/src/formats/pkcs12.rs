//! PKCS#12 ([RFC 7292]): `keystore.p12` and `truststore.p12`.
//!
//! [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292

use std::collections::BTreeMap;

use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, MacAlgorithm, Pkcs12Archive, PrivateKey, PrivateKeyChain,
};
use rustls_pki_types::CertificateDer;

use super::{Entries, FormatError, failed};
use crate::encoding;

/// The count of OpenSSL 3, and a fifth of that of Java 17. A greater one would cost time at every
/// look and gain nothing: the same Secret holds the same private key unencrypted.
const ITERATIONS: u32 = 2048;

pub(super) fn write(entries: &Entries<'_>, password: &str) -> Result<Vec<u8>, FormatError> {
    let mut store = KeyStore::new();
    match entries {
        Entries::Identity {
            alias,
            private_key,
            chain,
        } => {
            // Ties the key to its certificate; any bytes will do.
            let local_key_id = encoding::fingerprint(&chain[0]);
            let private_key = PrivateKey::from_der(private_key).map_err(failed)?;
            let chain = chain.iter().map(certificate);
            let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
            let entry = PrivateKeyChain::new(local_key_id, private_key, chain);
            store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(entry));
        }
        Entries::Trust(roots) => {
            for (alias, root) in roots {
                // Marked as trusted for every purpose, without which Java looks past it.
                store.add_entry(alias, KeyStoreEntry::Certificate(certificate(root)?));
            }
        }
    }
    store
        .writer(password)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(failed)
}

pub(super) fn holds(stored: &[u8], entries: &Entries<'_>, password: &str) -> bool {
    let Ok(Pkcs12Archive {
        keys,
        certs,
        secrets,
    }) = Pkcs12Archive::from_pkcs12(stored, password)
    else {
        return false;
    };
    let equal = match entries {
        Entries::Identity {
            private_key, chain, ..
        } => {
            let ([key], [own, ..]) = (&keys[..], &certs[..]) else {
                return false;
            };
            let id = key.local_key_id.as_ref().map(AsRef::as_ref);
            let found = certs.iter().map(|bag| bag.cert.as_der());
            *key.key.as_der() == **private_key
                && found.eq(chain.iter().map(AsRef::as_ref))
                && id.is_some()
                && own.local_key_id.as_deref() == id
                && certs.iter().all(|bag| !bag.trusted)
        }
        Entries::Trust(roots) => {
            let found: BTreeMap<_, _> = certs
                .iter()
                .filter(|bag| bag.trusted)
                .filter_map(|bag| Some((bag.friendly_name.as_deref()?, bag.cert.as_der())))
                .collect();
            let expected = roots.iter().map(|(alias, root)| (&**alias, &***root));
            keys.is_empty() && certs.len() == roots.len() && found.into_iter().eq(expected)
        }
    };
    equal && secrets.is_empty()
}

fn certificate(der: &CertificateDer<'_>) -> Result<Certificate, FormatError> {
    Certificate::from_der(der).map_err(failed)
}
