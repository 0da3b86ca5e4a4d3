//! A moment, authorities, a request, and certificates nobody should trust.

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{
    Authority, AuthorityError, Bundle, KeyAlgorithm, KeyEncoding, Leaf, LeafRequest, Usage,
    Verified, VerifyError,
};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SanType, SignatureAlgorithm,
};
use time::OffsetDateTime;

pub(crate) const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(crate) const NINETY_DAYS: SignedDuration = SignedDuration::from_hours(2160);
pub(crate) const TEN_YEARS: SignedDuration = SignedDuration::from_hours(87_600);

pub(crate) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn authority() -> Authority {
    Authority::generate("Example CA", TEN_YEARS, now()).unwrap()
}

pub(crate) fn request() -> LeafRequest {
    LeafRequest {
        common_name: Some("app1".to_owned()),
        former_common_name: None,
        dns_names: vec![
            "app1.team-a.svc".to_owned(),
            "app1.team-a.svc.cluster.local".to_owned(),
        ],
        ip_addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        uris: vec!["spiffe://example.com/ns/team-a/sa/app1".to_owned()],
        usages: vec![Usage::ServerAuth, Usage::ClientAuth],
        duration: NINETY_DAYS,
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    }
}

/// The content of a Secret, to be damaged.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) certificate: Vec<u8>,
    pub(crate) private_key: Vec<u8>,
}

impl Stored {
    pub(crate) fn new(leaf: &Leaf) -> Self {
        Self {
            certificate: leaf.chain_pem.clone().into_bytes(),
            private_key: leaf.private_key_pem.as_bytes().to_vec(),
        }
    }

    pub(crate) fn issued(authority: &Authority, request: &LeafRequest) -> Self {
        Self::new(&authority.issue(request, now()).unwrap())
    }

    pub(crate) fn entry(&mut self, index: usize) -> &mut Vec<u8> {
        match index {
            0 => &mut self.certificate,
            _ => &mut self.private_key,
        }
    }

    pub(crate) fn verify(
        &self,
        request: &LeafRequest,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        pki_certs::verify(&self.bundle(), request, &[authority.ca()], now)
    }

    pub(crate) fn bundle(&self) -> Bundle<'_> {
        Bundle {
            certificate: &self.certificate,
            private_key: &self.private_key,
        }
    }

    /// Those in `tls.crt`, each in PEM.
    pub(crate) fn certificates(&self) -> Vec<String> {
        let certificates = pem::parse_many(&self.certificate).unwrap();
        certificates
            .iter()
            .map(|certificate| String::from_utf8(certificate_pem(certificate.contents())).unwrap())
            .collect()
    }
}

/// Signs what `issue` never would: a leaf for [`request`], after `change` and with a key of any
/// kind.
pub(crate) fn forge(
    authority: &Authority,
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> Stored {
    let signing_key = KeyPair::from_pem(authority.private_key_pem().as_str()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.ca().certificate_pem(), signing_key).unwrap();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = leaf_params();
    params.key_identifier_method = key_identifier(&key);
    change(&mut params);
    Stored {
        certificate: params.signed_by(&key, &issuer).unwrap().pem().into_bytes(),
        private_key: key.serialize_pem().into_bytes(),
    }
}

fn leaf_params() -> CertificateParams {
    let request = request();
    let mut params = CertificateParams::new(request.dns_names).unwrap();
    params
        .subject_alt_names
        .extend(request.ip_addresses.into_iter().map(SanType::IpAddress));
    for uri in request.uris {
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, request.common_name.unwrap());
    params.not_before = date(now() - BACKDATED);
    params.not_after = date(now() + request.duration);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A root's certificate and key for [`Authority::from_pem`], sound until `change`. Always with the
/// same name.
pub(crate) fn root(
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = root_params();
    params.key_identifier_method = key_identifier(&key);
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(crate) fn brought(change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let (certificate, key) = root(&rcgen::PKCS_ECDSA_P256_SHA256, change);
    Authority::from_pem(certificate.as_bytes(), b"", key.as_bytes(), now()).unwrap()
}

/// A path of CAs as a platform team brings it, each PEM open to damage.
#[derive(Clone)]
pub(crate) struct Path {
    /// Without the root, that of the CA itself first.
    pub(crate) below_root: Vec<String>,
    pub(crate) root: String,
    pub(crate) key: String,
    /// The certificate above the CA's own.
    key_above: String,
}

impl Path {
    /// CAs below a root, at least one. `change` is called for each with the number of those
    /// above it.
    pub(crate) fn of(below_root: usize, change: impl Fn(usize, &mut CertificateParams)) -> Self {
        let mut key = KeyPair::generate().unwrap();
        let mut key_above = String::new();
        let mut params = path_params(0, &key);
        change(0, &mut params);
        let root = params.self_signed(&key).unwrap().pem();
        let mut certificates = Vec::new();
        for above in 1..=below_root {
            key_above = key.serialize_pem();
            let issuer = Issuer::new(params, key);
            key = KeyPair::generate().unwrap();
            params = path_params(above, &key);
            change(above, &mut params);
            certificates.insert(0, params.signed_by(&key, &issuer).unwrap().pem());
        }
        Self {
            below_root: certificates,
            root,
            key: key.serialize_pem(),
            key_above,
        }
    }

    /// A copy with another certificate for the key of the CA.
    pub(crate) fn renewed(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let above = self.below_root.get(1).unwrap_or(&self.root);
        let signing_key = KeyPair::from_pem(&self.key_above).unwrap();
        let issuer = Issuer::from_ca_cert_pem(above, signing_key).unwrap();
        let key = KeyPair::from_pem(&self.key).unwrap();
        let mut params = path_params(self.below_root.len(), &key);
        change(&mut params);
        let mut renewed = self.clone();
        renewed.below_root[0] = params.signed_by(&key, &issuer).unwrap().pem();
        renewed
    }

    pub(crate) fn read(&self) -> Result<Authority, AuthorityError> {
        let (chain, root) = (self.below_root.concat(), self.root.as_bytes());
        Authority::from_pem(chain.as_bytes(), root, self.key.as_bytes(), now())
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Brought CA");
    params.not_before = date(now() - DAY);
    params.not_after = date(now() + TEN_YEARS);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn path_params(above: usize, key: &KeyPair) -> CertificateParams {
    let mut params = root_params();
    params.key_identifier_method = key_identifier(key);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("CA {above}"));
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    params
}

/// RFC 7093, method 1, which is not what rcgen does by itself.
fn key_identifier(key: &KeyPair) -> KeyIdMethod {
    let hash = digest::digest(&digest::SHA256, key.public_key_raw());
    KeyIdMethod::PreSpecified(hash.as_ref()[..20].to_vec())
}

pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap()
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).unwrap().into_contents()
}

pub(crate) fn certificate_pem(der: &[u8]) -> Vec<u8> {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config).into_bytes()
}

#[track_caller]
pub(crate) fn expect_fault(
    stored: &Stored,
    request: &LeafRequest,
    authority: &Authority,
    fault: VerifyError,
    sentence: &str,
) {
    assert_eq!(fault.to_string(), sentence);
    assert_eq!(stored.verify(request, authority, now()), Err(fault));
}
