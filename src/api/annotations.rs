//! Every annotation and label key of `box.com/`, with its objects and values in [`TABLE`].
//!
//! Admission, the reconciler, `kubectl pki check` and the guide share it. An entry of the metadata
//! without an effect is a [`fault`]: an unknown key, a wrong value, or a key on a wrong object.

use super::GROUP;
use crate::util::text::{cut, is_subdomain, nearest, printable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Annotation on a Pki: renew the certificate now. The operator removes it after the renewal.
/// Each value is served once.
pub const RENEW_NOW: &str = "box.com/renew-now";
/// Key of the `userAnnotations` of a pod certificate in a volume: the name of the Pki. No object
/// has it as an annotation of its own.
pub const POD_PKI: &str = "box.com/pki";
/// Annotation on a Pki: whether its pods get an Event for each renewal.
pub const RENEWAL_EVENTS: &str = "box.com/renewal-events";
/// Annotation on a Pki: whether its Secret stays when the Pki is deleted.
///
/// The Secret never has an owner: Kubernetes may collect an object at once whose owner is being
/// deleted. The operator [offers](ADOPT) it to its Pki instead, and to a later one of that name.
pub const KEEP_SECRET: &str = "box.com/keep-secret";
/// Annotation on a Secret that nobody owns: the name of the Pki that may take it over as it is.
pub const ADOPT: &str = "box.com/adopt";
/// Annotation on a Deployment, `StatefulSet` or `DaemonSet`: whether it is restarted when a Secret
/// that its pods use was renewed.
pub const RESTART: &str = "box.com/restart-on-renewal";
/// Label on a namespace: whether it gets a copy of the CA bundle. The operator labels each copy.
pub const TRUST_BUNDLE: &str = "box.com/trust-bundle";
/// Annotation on the Secret of a CA: replace the CA, in the steps of a rotation. With the value
/// [`FORCE`] the old one is withdrawn at the end, even if something still uses it.
pub const ROTATE_NOW: &str = "box.com/rotate-now";
/// A value of [`ROTATE_NOW`].
pub const FORCE: &str = "force";
/// Annotation on the Secret of a CA: the fingerprint of a CA that may replace the known one.
pub const ACCEPT: &str = "box.com/accept-ca";
/// Annotation on the Secret of the CA, by the operator: the successor that takes over by force, as
/// a fingerprint.
pub const FORCED: &str = "box.com/rotation-by-force";
/// Annotation on the Secret of the webhook's CA: the time since which it signs.
pub const PREVIOUS_SINCE: &str = "box.com/previous-since";
/// Annotation of the webhook configuration: the operator puts the secret segment into its paths.
/// Annotation of the operator's pods: they answer at such a path. The chart sets both; a chart of
/// an older version sets neither.
pub const SECRET_PATH: &str = "box.com/secret-path";

/// An object whose metadata are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// A Pki.
    Pki,
    /// A `PkiPolicy`.
    PkiPolicy,
    /// A Secret of an application.
    Secret,
    /// The Secret of the CA, or of the webhook's CA.
    CaSecret,
    /// A `ConfigMap`.
    ConfigMap,
    /// A Namespace.
    Namespace,
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
    /// A Pod.
    Pod,
    /// The pod template in a workload.
    PodTemplate,
    /// Any other object.
    Other,
}

const SECRET_PATH_CARRIERS: &[Carrier] = &[
    Carrier::Pod,
    Carrier::PodTemplate,
    Carrier::Deployment,
    Carrier::Other,
];
const WORKLOADS: &[Carrier] = &[
    Carrier::Deployment,
    Carrier::StatefulSet,
    Carrier::DaemonSet,
];

impl Carrier {
    /// The name of the kind with its article, for messages.
    fn name(self) -> &'static str {
        match self {
            Self::Pki => "a Pki",
            Self::PkiPolicy => "a PkiPolicy",
            Self::Secret => "a Secret",
            Self::CaSecret => "the Secret of a CA",
            Self::ConfigMap => "a ConfigMap",
            Self::Namespace => "a Namespace",
            Self::Deployment => "a Deployment",
            Self::StatefulSet => "a StatefulSet",
            Self::DaemonSet => "a DaemonSet",
            Self::Pod => "a Pod",
            Self::PodTemplate => "a pod template",
            Self::Other => "this object",
        }
    }

    /// The keys that people may write on it.
    fn keys(self) -> impl Iterator<Item = &'static Control> {
        TABLE
            .iter()
            .filter(move |control| control.is_for_people() && control.on.contains(&self))
    }
}

/// The map of the metadata in which an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `metadata.labels`.
    Labels,
    /// `metadata.annotations`.
    Annotations,
}

impl Place {
    /// The name of the field in `metadata`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    fn entry(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }
}

/// The values that a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// True or false, in the spellings of Go's `strconv.ParseBool`.
    Bool,
    /// Any text.
    Any,
    /// Any text, of which [`FORCE`] has a meaning of its own.
    AnyOrForce,
    /// The name of a Pki.
    PkiName,
    /// The SHA-256 fingerprint of a certificate.
    Fingerprint,
    /// Values that only the operator or its chart writes.
    Internal,
}

/// A key, with its place, objects and values.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// The key, with its prefix.
    pub key: &'static str,
    /// The map in which it stands.
    pub place: Place,
    /// The objects on which it has an effect.
    pub on: &'static [Carrier],
    /// Its values.
    pub values: Values,
}

/// All keys.
pub static TABLE: [Control; 11] = [
    annotation(RENEW_NOW, &[Carrier::Pki], Values::Any),
    annotation(RENEWAL_EVENTS, &[Carrier::Pki], Values::Bool),
    annotation(KEEP_SECRET, &[Carrier::Pki], Values::Bool),
    annotation(RESTART, WORKLOADS, Values::Bool),
    annotation(ADOPT, &[Carrier::Secret], Values::PkiName),
    Control {
        place: Place::Labels,
        ..annotation(TRUST_BUNDLE, &[Carrier::Namespace], Values::Bool)
    },
    annotation(ROTATE_NOW, &[Carrier::CaSecret], Values::AnyOrForce),
    annotation(ACCEPT, &[Carrier::CaSecret], Values::Fingerprint),
    annotation(FORCED, &[Carrier::CaSecret], Values::Internal),
    annotation(PREVIOUS_SINCE, &[Carrier::CaSecret], Values::Internal),
    annotation(SECRET_PATH, SECRET_PATH_CARRIERS, Values::Internal),
];

const fn annotation(key: &'static str, on: &'static [Carrier], values: Values) -> Control {
    Control {
        key,
        place: Place::Annotations,
        on,
        values,
    }
}

impl Control {
    /// Whether people set it.
    pub fn is_for_people(&self) -> bool {
        self.values != Values::Internal
    }

    /// The objects on which it has an effect, as in `a Deployment, a StatefulSet or a DaemonSet`.
    pub fn carriers(&self) -> String {
        let names: Vec<_> = self.on.iter().map(|carrier| carrier.name()).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

/// The spellings of true that Go's `strconv.ParseBool` takes.
pub const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE: [&str; 6] = ["0", "f", "F", "FALSE", "false", "False"];

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub fn parse_bool(value: &str) -> Option<bool> {
    if TRUE.contains(&value) {
        Some(true)
    } else {
        FALSE.contains(&value).then_some(false)
    }
}

/// The boolean of this key. `None` if it is not there, or cannot be read.
pub fn flag(entries: &BTreeMap<String, String>, key: &str) -> Option<bool> {
    parse_bool(entries.get(key)?)
}

/// Maximum number of entries of one object that are reported.
pub const MAX_FAULTS: usize = 10;

/// The entries of these metadata that have no effect: the first [`MAX_FAULTS`].
pub fn faults(carrier: Carrier, meta: &ObjectMeta) -> Vec<String> {
    let faults =
        entries(meta).filter_map(|(place, key, value)| field_fault(carrier, place, key, value));
    faults.take(MAX_FAULTS).collect()
}

/// The [`fault`] of an entry, after the field that it stands in.
pub(crate) fn field_fault(
    carrier: Carrier,
    place: Place,
    key: &str,
    value: &str,
) -> Option<String> {
    let message = fault(carrier, place, key, value)?;
    Some(format!("metadata.{}: {message}", place.field()))
}

/// The entries of both maps.
pub(crate) fn entries(meta: &ObjectMeta) -> impl Iterator<Item = (Place, &str, &str)> {
    let labels = entries_in(Place::Labels, meta.labels.as_ref());
    labels.chain(entries_in(Place::Annotations, meta.annotations.as_ref()))
}

fn entries_in(
    place: Place,
    map: Option<&BTreeMap<String, String>>,
) -> impl Iterator<Item = (Place, &str, &str)> {
    let entries = map.into_iter().flatten();
    entries.map(move |(key, value)| (place, key.as_str(), value.as_str()))
}

/// Whether the prefix of a key is [`GROUP`], in whatever case, or a domain below it.
fn is_ours_or_below(prefix: &str) -> bool {
    let begin = prefix.len().checked_sub(GROUP.len());
    let end = begin.and_then(|begin| prefix.split_at_checked(begin));
    end.is_some_and(|(below, group)| {
        group.eq_ignore_ascii_case(GROUP) && (below.is_empty() || below.ends_with('.'))
    })
}

/// The reason, with a remedy, why this entry has no effect here. `None` if it has, or is not ours.
pub fn fault(carrier: Carrier, place: Place, key: &str, value: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/')?;
    if !is_ours_or_below(prefix) {
        return None;
    }
    let full = format!("{GROUP}/{name}");
    let known = TABLE.iter().find(|control| control.key == full);
    if prefix.len() > GROUP.len() {
        // Keys below the domain may be of other programs. With a name of ours they are a mistake.
        return known.map(|control| unknown(key, carrier, Some(control.key)));
    }
    match known {
        // The operator's own labels: on copies of the CA bundle, which are not for people to write.
        Some(control) if control.key == TRUST_BUNDLE && carrier == Carrier::ConfigMap => None,
        Some(control) if control.key == key => control.fault(carrier, place, value),
        _ => {
            let keys = TABLE.iter().filter(|control| control.is_for_people());
            let names = keys.filter_map(|control| control.key.split('/').nth(1));
            let meant = nearest(name, names).map(|name| format!("{GROUP}/{name}"));
            Some(unknown(key, carrier, meant.as_deref()))
        }
    }
}

fn unknown(key: &str, carrier: Carrier, meant: Option<&str>) -> String {
    let key = shown(key);
    if let Some(meant) = meant {
        return format!("\"{key}\" is unknown and has no effect; did you mean \"{meant}\"?");
    }
    let taken: Vec<_> = carrier.keys().map(|control| control.key).collect();
    let offer = match taken.as_slice() {
        [] => format!("remove it, or use a key outside of {GROUP}/"),
        keys => format!("the keys for {} are [{}]", carrier.name(), keys.join(", ")),
    };
    format!("\"{key}\" is unknown and has no effect: {offer}")
}

impl Control {
    fn fault(&self, of: Carrier, place: Place, value: &str) -> Option<String> {
        let key = self.key;
        if !self.on.contains(&of) {
            let carrier = of.name();
            let remedy = if self.is_for_people() {
                let is_of_template = matches!(of, Carrier::Pod | Carrier::PodTemplate);
                let is_misplaced = is_of_template && self.on == WORKLOADS;
                let but = if is_misplaced {
                    ", not of its pod template"
                } else {
                    ""
                };
                format!(
                    "write it as {} of {}{but}",
                    self.place.entry(),
                    self.carriers()
                )
            } else {
                "only the operator sets it; remove it".to_owned()
            };
            return Some(format!("\"{key}\" has no effect on {carrier}: {remedy}"));
        }
        if self.place != place && self.is_for_people() {
            let (found, wanted) = (place.entry(), self.place.entry());
            let field = self.place.field();
            return Some(format!(
                "\"{key}\" has no effect as {found}: write it as {wanted}, in metadata.{field}"
            ));
        }
        self.values.fault(key, value)
    }
}

impl Values {
    /// The fault of a value.
    fn fault(self, key: &str, value: &str) -> Option<String> {
        let written = shown(value);
        let no_effect = format!("\"{key}\" has no effect with the value \"{written}\"");
        let message = match self {
            Self::Bool if parse_bool(value).is_none() => {
                format!("{no_effect}: write \"true\" or \"false\"")
            }
            Self::PkiName if !is_subdomain(value) => format!(
                "{no_effect}, which cannot be the name of a Pki: write one, for example app1-pki"
            ),
            Self::Fingerprint if !is_fingerprint(value) => format!(
                "{no_effect}: write the SHA-256 fingerprint of the CA, 64 lower-case hexadecimal \
                 digits without colons"
            ),
            Self::AnyOrForce if is_mistyped_force(value.trim()) => format!(
                "\"{key}\" with the value \"{written}\" asks for a rotation without force: write \
                 \"{FORCE}\" if you mean that, or remove the annotation if you mean none"
            ),
            _ => return None,
        };
        Some(message)
    }
}

/// Whether a value of [`Values::AnyOrForce`] probably means [`FORCE`], or no rotation.
fn is_mistyped_force(value: &str) -> bool {
    let is_near = || nearest(value, [FORCE].into_iter()).is_some();
    value != FORCE && (parse_bool(value) == Some(false) || is_near())
}

fn is_fingerprint(value: &str) -> bool {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    value.len() == 64 && value.bytes().all(is_digit)
}

/// A key or value, shortened.
fn shown(text: &str) -> String {
    const MAX_SHOWN_BYTES: usize = 100;
    cut(&printable(text), MAX_SHOWN_BYTES)
}

#[cfg(test)]
mod tests;
