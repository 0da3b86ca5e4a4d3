//! The largest Pki, by which the cost of a rule is estimated.

use super::NAMESPACE;
use super::shape::Shape;
use crate::policy::identifiers;
use crate::policy::parsed_spec::MAX_NAMES;
use std::sync::LazyLock;

/// Number of labels and annotations that a rule may read, and compare with one another.
pub(super) const MAX_KEYS: usize = 100;
/// The longest annotation of the largest Pki. A Pki with a longer one gets its own estimate.
pub(super) const MAX_VALUE_BYTES: u64 = 4096;
/// The longest name of an object, or of a host.
pub(super) const MAX_NAME_BYTES: u64 = 253;
/// The longest key of a label or annotation: a host name, a slash, and a name of 63.
pub(super) const MAX_KEY_BYTES: u64 = 317;
pub(super) const MAX_LABEL_BYTES: u64 = 63;

/// The shape of the facts about the largest Pki, as the schema and [`ParsedSpec`] bound it.
pub(super) fn largest() -> &'static Shape {
    static LARGEST: LazyLock<Shape> = LazyLock::new(|| {
        let fields = |fields: Vec<(&str, Shape)>| {
            let fields = fields.into_iter();
            Shape::of_fields(fields.map(|(name, shape)| (name.to_owned(), shape)))
        };
        let names = |bytes: u64| Shape::list(MAX_NAMES as u64, Shape::text(bytes));
        let (name, word) = (|| Shape::text(MAX_NAME_BYTES), || Shape::text(32));
        let keyed = |bytes| Shape::map(MAX_KEYS as u64, MAX_KEY_BYTES, Shape::text(bytes));
        let (labels, annotations) = (|| keyed(MAX_LABEL_BYTES), || keyed(MAX_VALUE_BYTES));
        let key = ["algorithm", "encoding", "rotationPolicy"].map(|field| (field, word()));
        let key = key.into_iter().chain([("size", Shape::default())]);
        let spec = vec![
            ("serviceName", name()),
            ("commonName", Shape::text(MAX_NAME_BYTES)),
            ("dnsNames", names(MAX_NAME_BYTES)),
            ("ipAddresses", names(45)),
            ("uris", names(identifiers::MAX_URI_BYTES as u64)),
            ("usages", Shape::list(2, word())),
            ("secretName", name()),
            ("duration", word()),
            ("privateKey", fields(key.collect())),
            (
                "secretTemplate",
                fields(vec![("labels", labels()), ("annotations", annotations())]),
            ),
        ];
        let metadata = vec![
            ("name", name()),
            ("namespace", name()),
            ("labels", labels()),
            ("annotations", annotations()),
        ];
        let pki = fields(vec![("metadata", fields(metadata)), ("spec", fields(spec))]);
        let of_namespace = fields(vec![("name", name()), ("labels", labels())]);
        let namespace = fields(vec![("metadata", of_namespace)]);
        fields(vec![("pki", pki), (NAMESPACE, namespace)])
    });
    &LARGEST
}
