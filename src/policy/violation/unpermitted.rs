//! Violations of what a policy permits, each with what it would permit.

use super::{AllowedNames, Field, Violation};
use crate::api::Usage;
use crate::policy::wanted::Key;
use std::borrow::Cow;
use std::net::IpAddr;

impl Violation {
    /// A further DNS name that is not among `permitted`.
    pub(in crate::policy) fn dns_name(
        index: usize,
        name: &str,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        Self::not_permitted(Field::at("spec.dnsNames", index), name, policy, permitted)
    }

    /// An address that is in none of these ranges.
    pub(in crate::policy) fn ip_address(
        index: usize,
        address: IpAddr,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        let field = Field::at("spec.ipAddresses", index);
        Self::not_permitted(field, &address.to_string(), policy, permitted)
    }

    /// A URI that is not among `permitted`.
    pub(in crate::policy) fn uri(
        index: usize,
        uri: &str,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        Self::not_permitted(Field::at("spec.uris", index), uri, policy, permitted)
    }

    /// A usage that is not among `permitted`.
    pub(in crate::policy) fn usage(
        usage: Usage,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        Self::not_permitted(
            Field::of("spec.usages"),
            &usage.to_string(),
            policy,
            permitted,
        )
    }

    /// A kind of key that is not among `permitted`.
    pub(in crate::policy) fn key(
        key: Key,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        Self::not_permitted(
            Field::of("spec.privateKey"),
            &key.to_string(),
            policy,
            permitted,
        )
    }

    fn not_permitted(
        field: Field,
        value: &str,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        let permitted: Vec<_> = permitted.collect();
        let all = permitted.len();
        Self::NotPermitted {
            field,
            value: value.into(),
            policy: policy.into(),
            permitted: AllowedNames::nearest(permitted.into_iter().map(Cow::Owned), value, all),
        }
    }
}
