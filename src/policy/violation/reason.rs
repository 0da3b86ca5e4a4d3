//! The reasons of Events and conditions, by the field that is wrong.

/// The reason of a violation outside of the spec.
const REFUSED: &str = "PkiRefused";
/// The reasons by field of the spec.
const REASONS: [(&str, &str); 16] = [
    // The spec as a whole.
    ("", "PkiValidationError"),
    ("serviceName", "PkiServiceNameError"),
    ("commonName", "PkiCommonNameError"),
    ("dnsNames", "PkiDnsNameError"),
    ("ipAddresses", "PkiIpAddressError"),
    ("uris", "PkiUriError"),
    ("usages", "PkiUsageError"),
    ("secretName", "PkiSecretNameError"),
    // In `metadata`: the default of `secretName`.
    ("name", "PkiSecretNameError"),
    ("delivery", "PkiDeliveryError"),
    ("duration", "PkiDurationError"),
    ("renewBefore", "PkiRenewBeforeError"),
    ("renewBeforePercentage", "PkiRenewBeforeError"),
    ("privateKey", "PkiPrivateKeyError"),
    ("secretTemplate", "PkiSecretTemplateError"),
    ("outputs", "PkiOutputsError"),
];

/// The reason for a violation of this field, given as in `spec.dnsNames[0]`.
pub fn reason_of(field: &str) -> &'static str {
    let name = field.split('.').nth(1).unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    let known = REASONS.iter().find(|(field, _)| *field == name);
    known.map_or(REFUSED, |(_, reason)| reason)
}

/// Whether this is the reason for a broken rule.
pub fn is_reason(reason: &str) -> bool {
    reason == REFUSED || REASONS.iter().any(|(_, known)| *known == reason)
}
