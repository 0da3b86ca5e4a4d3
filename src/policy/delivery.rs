//! The fields that `spec.delivery` excludes.

use super::Settings;
use super::violation::{BrokenRule, Field, Violation};
use crate::api::{Delivery, Pki};

/// Adds the violations of a delivery that is not offered, and of fields that have no effect.
pub(super) fn check(pki: &Pki, settings: &Settings, violations: &mut Vec<Violation>) {
    let spec = &pki.spec;
    if pki.delivery() == Delivery::Secret {
        if !settings.has_secrets {
            let field = Field::of("spec.delivery");
            violations.push(Violation::new(field, BrokenRule::NoSecrets));
        }
        return;
    }
    for (path, is_set) in [
        ("spec.secretName", spec.secret_name.is_some()),
        ("spec.secretTemplate", spec.secret_template.is_some()),
        ("spec.outputs", spec.outputs.is_some()),
    ] {
        if is_set {
            let rule = BrokenRule::NoSecretWithPods;
            violations.push(Violation::new(Field::of(path), rule));
        }
    }
    if spec.private_key.is_some() {
        let rule = BrokenRule::KeyOfPods;
        violations.push(Violation::new(Field::of("spec.privateKey"), rule));
    }
}
