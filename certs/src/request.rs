//! The request for a certificate, for its issue and its verification.

use std::net::IpAddr;

use jiff::SignedDuration;

use crate::key::{KeyAlgorithm, KeyEncoding};
use crate::usage::Usage;
use crate::validity::BACKDATING;

/// A requested leaf.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeafRequest {
    /// The subject: the common name and nothing else. At most 64 characters. Without one the
    /// subject is empty, and the names below are marked as critical ([RFC 5280, 4.1.2.6]).
    ///
    /// [RFC 5280, 4.1.2.6]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.6
    pub common_name: Option<String>,
    /// Another common name that [`verify`](crate::verify) accepts until the next renewal.
    pub former_common_name: Option<String>,
    /// Host names, lower-case. `*` may be the whole first label. A name given twice counts once.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Absolute URIs, such as SPIFFE identities. There is at least one name, address or URI.
    pub uris: Vec<String>,
    /// Usages of the leaf, at least one. One given twice counts once.
    pub usages: Vec<Usage>,
    /// How long the leaf is valid from now on, in whole seconds; the authority may end it earlier.
    pub duration: SignedDuration,
    /// How long before its issue the leaf becomes valid, for clients whose clocks are slow.
    pub backdating: SignedDuration,
    /// The kind of key.
    pub key: KeyAlgorithm,
    /// How the key is written into its PEM.
    pub key_encoding: KeyEncoding,
}

impl LeafRequest {
    /// The backdating of leaves, where nothing else limits it.
    pub const BACKDATING: SignedDuration = BACKDATING;
}
