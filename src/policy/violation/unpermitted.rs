//! Values that a policy does not permit, each with the values that it permits.

use super::{AllowedNames, BrokenRule, Field, Violation, look_alike};
use crate::api::Usage;
use crate::policy::key::Key;
use ipnet::IpNet;
use std::borrow::Cow;
use std::net::IpAddr;

impl Violation {
    /// A further DNS name that is not among `permitted`. Every certificate has the name `own`.
    pub(in crate::policy) fn dns_name(
        index: usize,
        name: &str,
        own: &str,
        policy: &str,
        permitted: &[String],
    ) -> Self {
        let field = Field::at("spec.dnsNames", index);
        let why = look_alike::dns_name(name, own, permitted);
        Self::not_permitted(field, name, policy, permitted.iter().map(Cow::from), why)
    }

    /// An address that is in none of these ranges.
    pub(in crate::policy) fn ip_address(
        index: usize,
        address: IpAddr,
        policy: &str,
        permitted: &[IpNet],
    ) -> Self {
        let field = Field::at("spec.ipAddresses", index);
        let why = look_alike::ip_address(address, permitted);
        let permitted = permitted.iter().map(|range| Cow::Owned(range.to_string()));
        Self::not_permitted(field, &address.to_string(), policy, permitted, why)
    }

    /// A URI that is not among `permitted`.
    pub(in crate::policy) fn uri(
        index: usize,
        uri: &str,
        policy: &str,
        permitted: &[String],
    ) -> Self {
        let field = Field::at("spec.uris", index);
        let why = look_alike::uri(uri, permitted);
        Self::not_permitted(field, uri, policy, permitted.iter().map(Cow::from), why)
    }

    /// A usage that is not among `permitted`.
    pub(in crate::policy) fn usage(
        usage: Usage,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        let field = Field::of("spec.usages");
        Self::not_permitted(
            field,
            &usage.to_string(),
            policy,
            permitted.map(Cow::Owned),
            None,
        )
    }

    /// A kind of key that is not among `permitted`.
    pub(in crate::policy) fn key(
        key: Key,
        policy: &str,
        permitted: impl Iterator<Item = String>,
    ) -> Self {
        let field = Field::of("spec.privateKey");
        Self::not_permitted(
            field,
            &key.to_string(),
            policy,
            permitted.map(Cow::Owned),
            None,
        )
    }

    fn not_permitted<'a>(
        field: Field,
        value: &str,
        policy: &str,
        permitted: impl Iterator<Item = Cow<'a, str>>,
        why: Option<String>,
    ) -> Self {
        let permitted: Vec<_> = permitted.collect();
        let all = permitted.len();
        let permitted = AllowedNames::nearest(permitted.into_iter(), value, all);
        let remedy = match field.path() {
            // A default cannot be removed.
            "spec.usages" | "spec.privateKey" => {
                "write what is permitted, or ask the platform team to permit it"
            }
            _ => "remove it, or ask the platform team to permit it",
        };
        let rule = BrokenRule::NotPermitted {
            value: value.into(),
            policy: policy.into(),
            permitted: Box::new(permitted),
            why,
            remedy,
        };
        Self::new(field, rule)
    }
}
