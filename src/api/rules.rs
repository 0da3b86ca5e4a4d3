//! Rules of the schema that several fields share, in CEL, each with the message of its refusal.

use kube::core::Rule;

/// A duration of at least an hour, such as `2160h`.
pub(super) fn lifetime() -> Rule {
    Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,8}s)?$') && self != '' && duration(self) >= duration('1h')")
        .message("must be a duration of at least 1h, in hours, minutes and seconds, for example 2160h or 1h30m")
}

/// A duration of at least a second, such as `720h`.
pub(super) fn time_before() -> Rule {
    Rule::new(
        "self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,8}s)?$') && self.matches('[1-9]')",
    )
    .message("must be a duration in hours, minutes and seconds, for example 720h")
}

/// A spec with `delivery: Pod` says nothing about a Secret.
pub(super) fn no_secret_of_pods() -> Rule {
    Rule::new("!has(self.delivery) || self.delivery != 'Pod' || !(has(self.secretName) || has(self.secretTemplate) || has(self.outputs))")
        .message("secretName, secretTemplate and outputs have no effect with delivery: Pod, which writes no Secret: remove them")
        .field_path(".delivery")
}

/// A spec with `delivery: Pod` says nothing about the key.
pub(super) fn no_key_of_pods() -> Rule {
    Rule::new("!has(self.delivery) || self.delivery != 'Pod' || !has(self.privateKey)")
        .message("privateKey has no effect with delivery: Pod, where the kubelet makes the key: remove it, and write keyType in the volume of the pod")
        .field_path(".privateKey")
}

/// An object with at most one of `renewBefore` and `renewBeforePercentage`.
pub(super) fn one_renewal_time() -> Rule {
    Rule::new("!has(self.renewBefore) || !has(self.renewBeforePercentage)")
        .message("write either renewBefore or renewBeforePercentage, not both")
        .field_path(".renewBeforePercentage")
}
