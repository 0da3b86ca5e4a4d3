//! Faults of the defaults of a policy: unreadable values, and values that it does not permit.

use super::Faults;
use crate::api::{Defaults, PkiPolicySpec, PkiSpec, PrivateKey};
use crate::policy::effective::Effective;
use crate::policy::in_force::{MAX_TEMPLATE_BYTES, template_bytes};
use crate::policy::key::{Key, ignored_size};
use crate::policy::limits::Limits;
use crate::policy::names::display_duration;
use crate::policy::template;
use crate::policy::values::{Values, is_within, latest, lifetime};
use crate::policy::violation::Violation;
use crate::util::text::{is_subdomain, printable};

impl Faults {
    /// Each default by itself, then against the limits of the policy.
    pub(super) fn of_defaults(&mut self, spec: &PkiPolicySpec) {
        let Some(defaults) = &spec.defaults else {
            return;
        };
        let limits = Limits::of(spec);
        self.of_values(defaults);
        if let Some(duration) = defaults.duration.as_deref().and_then(lifetime)
            && let Some(max) = limits.max_duration.filter(|max| duration > *max)
        {
            let (duration, max) = (display_duration(duration), display_duration(max));
            self.add("spec.defaults.duration", format!("{duration} is longer than spec.maxDuration permits: write at most {max}, or raise spec.maxDuration"));
        }
        for usage in &defaults.usages {
            if !limits.allows_usage(*usage) {
                let why = "is not among spec.usages: remove it here, or permit it there";
                self.add("spec.defaults.usages", format!("\"{usage}\" {why}"));
            }
        }
        if let Some(key) = &defaults.private_key {
            self.of_key(key, defaults, &limits);
        }
        self.of_renewal(defaults, &limits);
        self.of_secret(defaults);
    }

    /// Finds the faults that the same values would have in a Pki.
    fn of_values(&mut self, defaults: &Defaults) {
        let spec = PkiSpec {
            duration: defaults.duration.clone(),
            renew_before: defaults.renew_before.clone(),
            renew_before_percentage: defaults.renew_before_percentage,
            private_key: defaults.private_key.clone(),
            ..PkiSpec::default()
        };
        let mut violations = Vec::new();
        Values::read(&spec, &mut violations);
        self.of_violations(violations);
    }

    fn of_violations(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            let field = violation.field().to_string();
            let field = field.replacen("spec.", "spec.defaults.", 1);
            self.add(field, violation.to_string());
        }
    }

    fn of_key(&mut self, key: &PrivateKey, defaults: &Defaults, limits: &Limits) {
        let field = "spec.defaults.privateKey";
        if let Some((size, algorithm)) = ignored_size(key) {
            let sizes = Key::sizes(algorithm).iter().map(ToString::to_string);
            let sizes = sizes.collect::<Vec<_>>().join(", ");
            let remedy = match sizes.as_str() {
                "" => "leave size out".to_owned(),
                sizes => format!("write one of {sizes}"),
            };
            let message = format!("{size} is not a size of an {algorithm} key: {remedy}");
            self.add(format!("{field}.size"), message);
            return;
        }
        let values = Values::of(defaults);
        // Resolved as values of a Pki, which are not narrowed to the permitted ones.
        let resolved = Effective::resolve(&values, &Values::default(), limits);
        let wanted = resolved.key();
        let spec = PkiSpec::default();
        if resolved.algorithm.is_left_out() && resolved.mismatches(&spec).next().is_some() {
            let algorithm = wanted.algorithm;
            self.add(field, format!("its size or encoding does not fit an {algorithm} key, which is the default: write its algorithm as well"));
        } else if !limits.allows_key(wanted.algorithm, wanted.size) {
            self.add(field, format!("{wanted} is not among spec.privateKeys: write a kind of key that is permitted, or permit it there"));
        }
    }

    /// Checks that the renewal is within the duration of a Pki that has neither.
    fn of_renewal(&mut self, defaults: &Defaults, limits: &Limits) {
        let values = Values::of(defaults);
        let Some(before) = values.renew_before else {
            return;
        };
        let duration = Effective::resolve(&Values::default(), &values, limits)
            .duration
            .value;
        let written = defaults.duration.as_deref();
        let is_readable = written.is_none_or(|it| lifetime(it).is_some());
        let mut fields = self.0.iter().map(|it| it.field.as_str());
        let is_reported = fields.any(|field| field.starts_with("spec.defaults.renew"));
        if is_readable && !is_reported && !is_within(before, duration) {
            let most = display_duration(latest(duration));
            let duration = display_duration(duration);
            self.add("spec.defaults.renewBefore", format!("it is longer than nine tenths of the duration, which is {duration} by default: write at most {most}"));
        }
    }

    fn of_secret(&mut self, defaults: &Defaults) {
        if let Some(written) = &defaults.secret_template {
            let mut violations = Vec::new();
            template::check(written, &mut violations);
            self.of_violations(violations);
            let bytes = template_bytes(written);
            if bytes > MAX_TEMPLATE_BYTES {
                self.add("spec.defaults.secretTemplate", format!("labels and annotations have {bytes} bytes together: write at most {MAX_TEMPLATE_BYTES}"));
            }
        }
        let outputs = defaults.outputs.clone().unwrap_or_default();
        for (kind, keystore) in [("pkcs12", &outputs.pkcs12), ("jks", &outputs.jks)] {
            let name = keystore
                .as_ref()
                .map(|it| it.password_secret_ref.name.as_str());
            if let Some(name) = name.filter(|name| !is_subdomain(name)) {
                let field = format!("spec.defaults.outputs.{kind}.passwordSecretRef.name");
                self.add(field, format!("\"{}\" is not the name of a Secret: write lower-case letters, digits, '-' and '.', for example keystore-password", printable(name)));
            }
        }
    }
}
