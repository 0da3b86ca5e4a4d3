//! The structures of PKCS#12 ([RFC 7292]) and PKCS#5 ([RFC 8018]) that [`super::write`] makes.
//!
//! [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292
//! [RFC 8018]: https://www.rfc-editor.org/rfc/rfc8018

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{DecodeValue, FixedTag, Sequence};
use pkcs8::AlgorithmIdentifierRef;

/// `PFX`, with the MAC, which the standard makes optional.
#[derive(Sequence)]
pub(super) struct Pfx<'a> {
    pub(super) version: u8,
    pub(super) safes: ContentInfo<'a>,
    pub(super) mac: MacData<'a>,
}

#[derive(Sequence)]
pub(super) struct MacData<'a> {
    pub(super) digest: DigestInfo<'a>,
    pub(super) salt: &'a OctetStringRef,
    pub(super) iterations: u32,
}

#[derive(Sequence)]
pub(super) struct DigestInfo<'a> {
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) digest: &'a OctetStringRef,
}

/// `AuthenticatedSafe`, with the contents that the writer makes.
#[derive(Sequence)]
pub(super) struct Safes<'a> {
    pub(super) certificates: ContentInfo<'a>,
    pub(super) keys: ContentInfo<'a>,
}

#[derive(Sequence)]
pub(super) struct ContentInfo<'a> {
    pub(super) kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) content: AnyRef<'a>,
}

#[derive(Sequence)]
pub(super) struct EncryptedData<'a> {
    pub(super) version: u8,
    pub(super) content: EncryptedContentInfo<'a>,
}

#[derive(Sequence)]
pub(super) struct EncryptedContentInfo<'a> {
    pub(super) kind: ObjectIdentifier,
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    pub(super) data: &'a OctetStringRef,
}

#[derive(Sequence)]
pub(super) struct Pbes2<'a> {
    pub(super) derivation: AlgorithmIdentifierRef<'a>,
    pub(super) cipher: AlgorithmIdentifierRef<'a>,
}

#[derive(Sequence)]
pub(super) struct Pbkdf2<'a> {
    pub(super) salt: &'a OctetStringRef,
    pub(super) iterations: u32,
    pub(super) function: AlgorithmIdentifierRef<'a>,
}

#[derive(Sequence)]
pub(super) struct Bag<'a> {
    pub(super) kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) value: AnyRef<'a>,
    pub(super) attributes: AnyRef<'a>,
}

#[derive(Sequence)]
pub(super) struct CertificateBag<'a> {
    pub(super) kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) der: &'a OctetStringRef,
}

#[derive(Sequence)]
pub(super) struct Attribute<'a> {
    pub(super) kind: ObjectIdentifier,
    pub(super) values: AnyRef<'a>,
}

impl<'a> ContentInfo<'a> {
    pub(super) fn read<T: DecodeValue<'a> + FixedTag + 'a>(
        &self,
        kind: ObjectIdentifier,
    ) -> Option<T> {
        read(self.kind == kind, self.content)
    }
}

impl<'a> Bag<'a> {
    pub(super) fn read<T: DecodeValue<'a> + FixedTag + 'a>(
        &self,
        kind: ObjectIdentifier,
    ) -> Option<T> {
        read(self.kind == kind, self.value)
    }
}

pub(super) fn parameters<'a, T: DecodeValue<'a> + FixedTag + 'a>(
    algorithm: AlgorithmIdentifierRef<'a>,
    oid: ObjectIdentifier,
) -> Option<T> {
    read(algorithm.oid == oid, algorithm.parameters?)
}

fn read<'a, T: DecodeValue<'a> + FixedTag + 'a>(is_kind: bool, value: AnyRef<'a>) -> Option<T> {
    if is_kind {
        value.decode_as().ok()
    } else {
        None
    }
}
