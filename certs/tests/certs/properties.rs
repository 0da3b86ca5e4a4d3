//! Properties of any request, any moment and any damage.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use pki_certs::{
    Authority, KeyAlgorithm, KeyEncoding, LeafRequest, RenewBefore, Usage, VerifyError, renewal,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::fixtures::{DAY, Stored, authority, certificate_pem, der, now, request};

proptest! {
    #[test]
    fn an_issued_leaf_verifies_until_it_ends(
        request in any_request(),
        now in any_moment(),
        elapsed in 0.0..1.0,
    ) {
        let authority = Authority::generate("Example CA", DAY * 3650, now).unwrap();
        let leaf = authority.issue(&request, now).unwrap();
        let stored = Stored::new(&leaf);
        prop_assert_eq!(leaf.cut_short, now + request.duration > authority.ca().not_after());
        let lifetime = leaf.not_after.duration_since(leaf.not_before);
        let later = leaf.not_before + lifetime.mul_f64(elapsed);
        let verified = stored.verify(&request, &authority, later).unwrap();
        prop_assert_eq!(verified.serial, leaf.serial);
        prop_assert!(leaf.not_before < now && now < leaf.not_after + SignedDuration::from_secs(1));
        prop_assert!(leaf.not_after <= authority.ca().not_after());
    }

    #[test]
    fn a_leaf_of_another_authority_never_verifies(request in any_request()) {
        let (signer, present) = (authority(), authority());
        let stored = Stored::issued(&signer, &request);
        prop_assert_eq!(stored.verify(&request, &present, now()), Err(VerifyError::OtherIssuer));
    }

    #[test]
    fn any_change_of_the_request_is_found(one in any_request(), other in any_request()) {
        prop_assume!(one != other);
        let authority = authority();
        prop_assert!(Stored::issued(&authority, &one).verify(&other, &authority, now()).is_err());
    }

    #[test]
    fn renewal_always_lies_within_the_validity(
        not_before in any_moment(),
        seconds in 2..100_000_000_000_i64,
        renew_before in proptest::option::of(any_renew_before()),
        seed: Vec<u8>,
    ) {
        let not_after = not_before + SignedDuration::from_secs(seconds);
        let due = renewal::at(not_before, not_after, renew_before);
        prop_assert!(not_before < due && due < not_after, "{not_before} {due} {not_after}");
        let jittered = renewal::with_jitter(due, not_before, not_after, &seed);
        prop_assert!(not_before < jittered && jittered <= due, "{not_before} {jittered} {due}");
        prop_assert_eq!(jittered, renewal::with_jitter(due, not_before, not_after, &seed));
    }

    #[test]
    fn a_spread_stays_within_the_window(window in any_duration(), seed: Vec<u8>) {
        let part = renewal::spread(window, &seed);
        prop_assert!(!part.is_negative());
        prop_assert!(part < window || part.is_zero() && !window.is_positive());
        prop_assert_eq!(part, renewal::spread(window, &seed));
    }

    #[test]
    fn arbitrary_entries_never_verify(entries: [Vec<u8>; 2]) {
        let authority = authority();
        let [certificate, private_key] = entries;
        let stored = Stored { certificate, private_key };
        prop_assert!(stored.verify(&request(), &authority, now()).is_err());
    }

    #[test]
    fn arbitrary_authorities_are_never_read(certificate: Vec<u8>, private_key: Vec<u8>) {
        prop_assert!(Authority::from_pem(&certificate, b"", &private_key, now()).is_err());
        let wrapped = certificate_pem(&certificate);
        prop_assert!(Authority::from_pem(&wrapped, b"", &private_key, now()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_mutated_certificate_never_verifies(
        mutations in vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..4),
    ) {
        let (authority, mut stored) = issued_once();
        let original = certificate_der(&stored);
        let mut mutated = original.clone();
        for (index, bits) in mutations {
            let len = mutated.len();
            mutated[index.index(len)] ^= bits;
        }
        prop_assume!(mutated != original);
        stored.certificate = certificate_pem(&mutated);
        prop_assert!(stored.verify(&request(), authority, now()).is_err());
    }

    #[test]
    fn a_mutated_secret_never_verifies(
        entry in 0..2_usize,
        index: prop::sample::Index,
        bits in 1..=u8::MAX,
    ) {
        let (authority, mut stored) = issued_once();
        let key = stored.private_key.clone();
        let mutated = stored.entry(entry);
        let len = mutated.len();
        mutated[index.index(len)] ^= bits;
        let verdict = stored.verify(&request(), authority, now());
        // A bit or two of a key's encoding say nothing of the key: what is issued for it goes with
        // the one before.
        let is_the_same_key = || {
            let leaf = authority.issue_for(&request(), &stored.private_key, now()).unwrap();
            let certificate = leaf.chain_pem.into_bytes();
            let stored = Stored { certificate, private_key: key };
            stored.verify(&request(), authority, now()).is_ok()
        };
        prop_assert!(verdict.is_err() || entry == 1 && is_the_same_key());
    }

    #[test]
    fn a_mutated_authority_is_never_read(index: prop::sample::Index, bits in 1..=u8::MAX) {
        let (authority, _) = issued_once();
        let mut mutated = der(authority.ca().certificate_pem());
        let len = mutated.len();
        mutated[index.index(len)] ^= bits;
        let key = authority.private_key_pem().as_bytes();
        prop_assert!(Authority::from_pem(&certificate_pem(&mutated), b"", key, now()).is_err());
    }
}

/// Making one for each case would take most of the time.
fn issued_once() -> (&'static Authority, Stored) {
    static ISSUED: std::sync::LazyLock<(Authority, Stored)> = std::sync::LazyLock::new(|| {
        let authority = authority();
        let stored = Stored::issued(&authority, &request());
        (authority, stored)
    });
    let (authority, stored) = &*ISSUED;
    (authority, stored.clone())
}

fn certificate_der(stored: &Stored) -> Vec<u8> {
    der(std::str::from_utf8(&stored.certificate).unwrap())
}

prop_compose! {
    fn any_request()(
        common_name in option::of("[^\\p{Cc}]{1,64}"),
        dns_names in vec(any_dns_name(), 1..8),
        ip_addresses in vec(any::<IpAddr>(), 0..4),
        uris in vec(any_uri(), 0..3),
        usages in vec(prop_oneof![Just(Usage::ServerAuth), Just(Usage::ClientAuth)], 1..4),
        seconds in 1..400_000_000_i64,
        backdated in 0..600_i64,
        key in any_key(),
        key_encoding in prop_oneof![Just(KeyEncoding::Pkcs8), Just(KeyEncoding::Traditional)],
    ) -> LeafRequest {
        let [duration, backdating] = [seconds, backdated].map(SignedDuration::from_secs);
        LeafRequest {
            common_name, former_common_name: None, dns_names, ip_addresses, uris, usages, duration, backdating, key,
            key_encoding,
        }
    }
}

/// RSA rarely, because making its keys is slow.
fn any_key() -> impl Strategy<Value = KeyAlgorithm> {
    prop_oneof![
        20 => Just(KeyAlgorithm::EcdsaP256),
        20 => Just(KeyAlgorithm::EcdsaP384),
        20 => Just(KeyAlgorithm::Ed25519),
        1 => Just(KeyAlgorithm::Rsa2048),
    ]
}

fn any_uri() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9+.-]{0,8}:(//[a-z0-9.-]{1,20}(:[0-9]{1,5})?/)?[A-Za-z0-9._~!$&'()*+,;=:@-]{1,30}"
}

fn any_renew_before() -> impl Strategy<Value = RenewBefore> {
    prop_oneof![
        any_duration().prop_map(RenewBefore::Duration),
        any::<u8>().prop_map(RenewBefore::Percentage),
    ]
}

fn any_dns_name() -> impl Strategy<Value = String> {
    let label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    let name = proptest::string::string_regex(&format!(r"(\*\.)?{label}(\.{label}){{0,5}}"));
    name.unwrap()
        .prop_filter("names have up to 253 characters", |name| {
            name.len() <= 253 && name.parse::<IpAddr>().is_err()
        })
}

/// Between 1971 and 2200, with fractions of a second.
fn any_moment() -> impl Strategy<Value = Timestamp> {
    (31_536_000..7_258_118_400_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
}

fn any_duration() -> impl Strategy<Value = SignedDuration> {
    (any::<i64>(), 0..1_000_000_000_i32).prop_map(|(seconds, nanoseconds)| {
        SignedDuration::new(seconds.saturating_sub(1), nanoseconds)
    })
}
