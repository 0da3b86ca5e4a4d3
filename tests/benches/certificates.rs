//! How long a certificate takes, beside the key and the signature in it: `cargo bench --bench
//! certificates`.
//!
//! What the cryptography takes by itself is the bound; the rest is ours: names, DER, PEM and
//! checks.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey,
};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, Bundle, KeyAlgorithm, KeyEncoding, Leaf, LeafRequest, Usage, verify};
use std::hint::black_box;

criterion_group!(benches, issuance, verification);
criterion_main!(benches);

/// The CA has a key on P-256, whatever key the leaf gets.
fn issuance(criterion: &mut Criterion) {
    let ca = authority();
    for (algorithm, make_key) in [
        (KeyAlgorithm::EcdsaP256, ecdsa_p256 as fn(&mut Bencher<'_>)),
        (KeyAlgorithm::EcdsaP384, ecdsa_p384),
        (KeyAlgorithm::Ed25519, ed25519),
        (KeyAlgorithm::Rsa2048, rsa_2048),
    ] {
        let request = request(algorithm);
        let mut group = criterion.benchmark_group(format!("issue, {algorithm}"));
        if algorithm == KeyAlgorithm::Rsa2048 {
            // It takes a tenth of a second, and how long is up to chance.
            group.sample_size(30);
        }
        group.bench_function("key alone", make_key);
        group.bench_function("certificate", |bench| {
            bench.iter(|| issue(&ca, black_box(&request)));
        });
        if algorithm == KeyAlgorithm::EcdsaP256 {
            group.bench_function("signature alone", sign);
            let key = issue(&ca, &request).private_key_pem;
            group.bench_function("certificate for a key that is kept", |bench| {
                bench.iter(|| ca.issue_for(black_box(&request), key.as_bytes(), now()));
            });
        }
        group.finish();
    }
}

/// What every look at a Pki costs whose certificate is sound.
fn verification(criterion: &mut Criterion) {
    let ca = authority();
    let request = request(KeyAlgorithm::EcdsaP256);
    let leaf = issue(&ca, &request);
    let bundle = Bundle {
        certificate: leaf.chain_pem.as_bytes(),
        private_key: leaf.private_key_pem.as_bytes(),
    };
    let mut group = criterion.benchmark_group("verify");
    group.bench_function("signature alone", check);
    group.bench_function("certificate, chain and key", |bench| {
        bench.iter(|| {
            verify(black_box(&bundle), &request, &[ca.ca()], now()).expect("it was just issued")
        });
    });
    group.finish();
}

fn ecdsa_p256(bench: &mut Bencher<'_>) {
    bench.iter(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"));
}

fn ecdsa_p384(bench: &mut Bencher<'_>) {
    bench.iter(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("a key"));
}

fn ed25519(bench: &mut Bencher<'_>) {
    bench.iter(|| Ed25519KeyPair::generate().expect("a key"));
}

fn rsa_2048(bench: &mut Bencher<'_>) {
    bench.iter(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));
}

fn sign(bench: &mut Bencher<'_>) {
    let (pair, random) = (signer(), SystemRandom::new());
    bench.iter(|| {
        pair.sign(&random, black_box(&MESSAGE))
            .expect("a signature")
    });
}

fn check(bench: &mut Bencher<'_>) {
    let pair = signer();
    let signature = pair
        .sign(&SystemRandom::new(), &MESSAGE)
        .expect("a signature");
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
    bench.iter(|| key.verify(black_box(&MESSAGE), signature.as_ref()));
}

/// As long as what is signed of a certificate.
const MESSAGE: [u8; 400] = [7; 400];

fn signer() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key")
}

fn now() -> Timestamp {
    Timestamp::from_second(1_900_000_000).expect("a time")
}

fn authority() -> Authority {
    let ten_years = SignedDuration::from_hours(24 * 3650);
    Authority::generate("pki-operator", ten_years, now()).expect("a CA")
}

fn request(key: KeyAlgorithm) -> LeafRequest {
    LeafRequest {
        common_name: Some("app1.app1.svc".into()),
        former_common_name: None,
        dns_names: vec!["app1.app1.svc".into(), "app1.app1.svc.cluster.local".into()],
        ip_addresses: vec![],
        uris: vec![],
        usages: vec![Usage::ServerAuth, Usage::ClientAuth],
        duration: SignedDuration::from_hours(24 * 90),
        backdating: LeafRequest::BACKDATING,
        key,
        key_encoding: KeyEncoding::default(),
    }
}

fn issue(ca: &Authority, request: &LeafRequest) -> Leaf {
    ca.issue(request, now()).expect("a certificate")
}
