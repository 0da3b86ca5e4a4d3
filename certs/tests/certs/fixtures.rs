//! A moment, an authority, a request, and certificates nobody should trust.

use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, Bundle, Fault, KeyAlgorithm, Leaf, LeafRequest, Verified};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SignatureAlgorithm,
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
        common_name: "app1".to_owned(),
        dns_names: vec![
            "app1.team-a.svc".to_owned(),
            "app1.team-a.svc.cluster.local".to_owned(),
        ],
        ip_addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        duration: NINETY_DAYS,
        key: KeyAlgorithm::EcdsaP256,
    }
}

/// What a Secret holds, each entry open to damage.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) certificate: Vec<u8>,
    pub(crate) private_key: Vec<u8>,
    pub(crate) authority: Vec<u8>,
}

impl Stored {
    pub(crate) fn new(leaf: &Leaf, authority: &Authority) -> Self {
        Self {
            certificate: leaf.chain_pem.clone().into_bytes(),
            private_key: leaf.private_key_pem.as_bytes().to_vec(),
            authority: authority.certificate_pem().as_bytes().to_vec(),
        }
    }

    pub(crate) fn issued(authority: &Authority, request: &LeafRequest) -> Self {
        Self::new(&authority.issue(request, now()).unwrap(), authority)
    }

    pub(crate) fn entry(&mut self, index: usize) -> &mut Vec<u8> {
        match index {
            0 => &mut self.certificate,
            1 => &mut self.private_key,
            _ => &mut self.authority,
        }
    }

    pub(crate) fn verify(
        &self,
        request: &LeafRequest,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Verified, Fault> {
        let bundle = Bundle {
            certificate: &self.certificate,
            private_key: &self.private_key,
            authority: &self.authority,
        };
        pki_certs::verify(&bundle, request, authority, now)
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
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), signing_key).unwrap();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = leaf_params();
    change(&mut params);
    Stored {
        certificate: params.signed_by(&key, &issuer).unwrap().pem().into_bytes(),
        private_key: key.serialize_pem().into_bytes(),
        authority: authority.certificate_pem().as_bytes().to_vec(),
    }
}

fn leaf_params() -> CertificateParams {
    let request = request();
    let mut params = CertificateParams::new(request.dns_names).unwrap();
    params
        .subject_alt_names
        .extend(request.ip_addresses.into_iter().map(SanType::IpAddress));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, request.common_name);
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
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(crate) fn brought(change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let (certificate, key) = root(&rcgen::PKCS_ECDSA_P256_SHA256, change);
    Authority::from_pem(certificate.as_bytes(), key.as_bytes(), now()).unwrap()
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

pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap()
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).unwrap().into_contents()
}

pub(crate) fn certificate_pem(der: &[u8]) -> Vec<u8> {
    pem::encode(&pem::Pem::new("CERTIFICATE", der)).into_bytes()
}

#[track_caller]
pub(crate) fn expect_fault(
    stored: &Stored,
    request: &LeafRequest,
    authority: &Authority,
    fault: Fault,
    sentence: &str,
) {
    assert_eq!(fault.to_string(), sentence);
    assert_eq!(stored.verify(request, authority, now()), Err(fault));
}
