//! Defaults of a policy, and those in force: a changed default counts from the next renewal.

use super::effective::{Chosen, Effective, Origin};
use super::names::display_duration;
use super::values::{BUILT_IN_DURATION, Values, third};
use super::{Approved, Labels, Settings, template};
use crate::api::{
    Defaults, KeyAlgorithm, KeyEncoding, Keystore, Outputs, Pki, PrivateKey, RotationPolicy,
    SecretTemplate, Usage,
};
use crate::util::text::is_subdomain;
use jiff::SignedDuration;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Maximum size of the labels and annotations of defaults, which the status of each Pki repeats.
pub(super) const MAX_TEMPLATE_BYTES: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DefaultValues {
    pub(super) values: Values,
    pub(super) template: SecretTemplate,
    pub(super) outputs: Outputs,
}

/// One value that counts for a Pki, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The field, as in `privateKey.size`.
    pub field: &'static str,
    /// The value in one line.
    pub value: String,
    /// The source of the value.
    pub origin: Origin,
}

impl DefaultValues {
    pub(super) fn read(defaults: &Defaults) -> Self {
        let template = defaults.secret_template.clone().unwrap_or_default();
        let is_usable = |it: &SecretTemplate| {
            let mut violations = Vec::new();
            template::check(it, &mut violations);
            violations.is_empty() && template_bytes(it) <= MAX_TEMPLATE_BYTES
        };
        let mut outputs = defaults.outputs.clone().unwrap_or_default();
        for keystore in [&mut outputs.pkcs12, &mut outputs.jks] {
            let taken = keystore.take();
            *keystore = taken.filter(|it| is_subdomain(&it.password_secret_ref.name));
        }
        Self {
            values: Values::of(defaults),
            template: Some(template).filter(is_usable).unwrap_or_default(),
            outputs,
        }
    }

    /// The labels and annotations of a Secret: those of the Pki, and these where it leaves one out.
    pub(super) fn template<'a>(
        &'a self,
        specified: Option<&'a SecretTemplate>,
    ) -> Cow<'a, SecretTemplate> {
        let Some(specified) = specified else {
            return Cow::Borrowed(&self.template);
        };
        if self.template == SecretTemplate::default() {
            return Cow::Borrowed(specified);
        }
        let mut all = self.template.clone();
        all.labels.extend(specified.labels.clone());
        all.annotations.extend(specified.annotations.clone());
        Cow::Owned(all)
    }

    /// The further files of a Secret: those of the Pki, else these. A password never comes from the
    /// Secret that is written, or from one of the operator's own.
    fn outputs(&self, pki: &Pki, settings: &Settings) -> Outputs {
        let specified = pki.spec.outputs.clone().unwrap_or_default();
        let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
        let usable = |keystore: &Keystore| {
            let name = &keystore.password_secret_ref.name;
            name != pki.secret_name() && !settings.is_reserved(namespace, name)
        };
        let default = |keystore: &Option<Keystore>| keystore.clone().filter(usable);
        Outputs {
            combined_pem: specified.combined_pem.or(self.outputs.combined_pem),
            der_key: specified.der_key.or(self.outputs.der_key),
            pkcs12: specified.pkcs12.or_else(|| default(&self.outputs.pkcs12)),
            jks: specified.jks.or_else(|| default(&self.outputs.jks)),
        }
    }
}

pub(super) fn template_bytes(template: &SecretTemplate) -> usize {
    let all = template.labels.iter().chain(&template.annotations);
    all.map(|(key, value)| key.len() + value.len()).sum()
}

impl Approved {
    pub(super) fn new(
        policy: String,
        certificate: LeafRequest,
        effective: Effective,
        defaults: Arc<DefaultValues>,
        pki: &Pki,
        settings: &Settings,
    ) -> Self {
        let template = defaults.template(pki.spec.secret_template.as_ref());
        Self {
            policy,
            certificate,
            secret_name: pki.secret_name().to_owned(),
            renew_before: effective.renew_before.value,
            keeps_key: effective.rotation.value == RotationPolicy::Never,
            template: template.into_owned(),
            outputs: defaults.outputs(pki, settings),
            effective,
            defaults,
            in_force: None,
        }
    }

    /// The approval for the present certificate, which keeps the defaults of its issue.
    pub fn in_force(&self) -> &Self {
        self.in_force.as_deref().unwrap_or(self)
    }

    /// Returns the approval that the status records, if it differs.
    pub(super) fn recorded_for(&self, pki: &Pki, settings: &Settings) -> Option<Self> {
        let status = pki.status.as_ref()?;
        status.serial_number.as_ref()?;
        let recorded = match &status.defaults {
            Some(recorded) => DefaultValues::read(recorded),
            None => former(self.effective.duration),
        };
        let effective = self.effective.kept(&recorded.values);
        let mut certificate = self.certificate.clone();
        effective.apply_to(&mut certificate);
        let policy = self.policy.clone();
        let kept = Self::new(
            policy,
            certificate,
            effective,
            recorded.into(),
            pki,
            settings,
        );
        let is_other = kept.certificate != self.certificate
            || kept.renew_before != self.renew_before
            || kept.template != self.template
            || kept.outputs != self.outputs;
        is_other.then_some(kept)
    }

    /// The record for the status: values that the spec leaves out, labels, annotations and files.
    pub fn recorded(&self) -> Defaults {
        fn left_out<T: Clone>(chosen: &Chosen<T>) -> Option<T> {
            chosen.is_left_out().then(|| chosen.value.clone())
        }
        let it = &self.effective;
        let size = left_out(&it.size).filter(|_| it.algorithm.value != KeyAlgorithm::Ed25519);
        let key = PrivateKey {
            algorithm: left_out(&it.algorithm),
            size,
            encoding: left_out(&it.encoding),
            rotation_policy: None,
        };
        let is_renewal_left_out = it.renew_before.is_left_out();
        let before = Some(it.time_before_end()).filter(|_| is_renewal_left_out);
        let some = |template: &SecretTemplate| *template != SecretTemplate::default();
        Defaults {
            duration: left_out(&it.duration).map(display_duration),
            renew_before: before.and_then(Result::ok).map(display_duration),
            renew_before_percentage: before.and_then(Result::err).map(i32::from),
            usages: left_out(&it.usages).into_iter().flatten().collect(),
            private_key: Some(key).filter(|key| *key != PrivateKey::default()),
            outputs: Some(self.defaults.outputs.clone()).filter(|it| *it != Outputs::default()),
            secret_template: Some(self.defaults.template.clone()).filter(some),
        }
    }

    /// Each value that counts, with its origin.
    pub fn effective_values(&self) -> Vec<EffectiveValue> {
        let it = &self.effective;
        let usages: Vec<_> = it.usages.value.iter().map(ToString::to_string).collect();
        let before = match it.renew_before.value {
            Some(RenewBefore::Duration(before)) => display_duration(before),
            Some(RenewBefore::Percentage(percentage)) => format!("{percentage} percent"),
            None => {
                let third = it.time_before_end().unwrap_or(SignedDuration::ZERO);
                format!("{}, a third of the duration", display_duration(third))
            }
        };
        let rotation = format!("{:?}", it.rotation.value);
        let (duration, algorithm) = (display_duration(it.duration.value), it.algorithm);
        let mut values = vec![
            value("duration", duration, it.duration.origin),
            value("renewBefore", before, it.renew_before.origin),
            value("usages", usages.join(", "), it.usages.origin),
            value(
                "privateKey.algorithm",
                algorithm.value.to_string(),
                algorithm.origin,
            ),
        ];
        if algorithm.value != KeyAlgorithm::Ed25519 {
            values.push(value(
                "privateKey.size",
                it.size.value.to_string(),
                it.size.origin,
            ));
        }
        values.push(value(
            "privateKey.encoding",
            it.encoding.value.to_string(),
            it.encoding.origin,
        ));
        values.push(value(
            "privateKey.rotationPolicy",
            rotation,
            it.rotation.origin,
        ));
        values.extend(self.further_values());
        values
    }

    /// Files, labels and annotations, some of which come from the policy.
    fn further_values(&self) -> impl Iterator<Item = EffectiveValue> {
        let (own, default) = (&self.outputs, &self.defaults.outputs);
        let file = |field, own: Option<bool>, default: Option<bool>| {
            (own == Some(true)).then(|| value(field, "true".to_owned(), origin(own == default)))
        };
        let keystore = |field, own: &Option<Keystore>, default: &Option<Keystore>| {
            let secret = &own.as_ref()?.password_secret_ref.name;
            Some(value(
                field,
                format!("password in Secret {secret}"),
                origin(own == default),
            ))
        };
        let files = [
            file(
                "outputs.combinedPem",
                own.combined_pem,
                default.combined_pem,
            ),
            file("outputs.derKey", own.der_key, default.der_key),
            keystore("outputs.pkcs12", &own.pkcs12, &default.pkcs12),
            keystore("outputs.jks", &own.jks, &default.jks),
        ];
        let (own, default) = (&self.template, &self.defaults.template);
        let labels = entries("secretTemplate.labels", &own.labels, &default.labels);
        let annotations = entries(
            "secretTemplate.annotations",
            &own.annotations,
            &default.annotations,
        );
        files.into_iter().flatten().chain(labels).chain(annotations)
    }
}

fn value(field: &'static str, value: String, origin: Origin) -> EffectiveValue {
    EffectiveValue {
        field,
        value,
        origin,
    }
}

fn entries<'a>(
    field: &'static str,
    own: &'a Labels,
    defaults: &'a Labels,
) -> impl Iterator<Item = EffectiveValue> + 'a {
    own.iter().map(move |(key, text)| {
        let is_default = defaults.get(key) == Some(text);
        value(field, format!("{key}={text}"), origin(is_default))
    })
}

fn origin(is_default: bool) -> Origin {
    if is_default {
        Origin::Policy
    } else {
        Origin::Spec
    }
}

/// The defaults of version 0.2, which recorded none.
fn former(duration: Chosen<SignedDuration>) -> DefaultValues {
    let duration = match duration.origin {
        Origin::Spec => duration.value,
        _ => BUILT_IN_DURATION,
    };
    let values = Values {
        duration: Some(duration),
        renew_before: Some(RenewBefore::Duration(third(duration))),
        usages: BTreeSet::from([Usage::ServerAuth, Usage::ClientAuth]),
        algorithm: Some(KeyAlgorithm::Ecdsa),
        size: Some(256),
        encoding: Some(KeyEncoding::Pkcs8),
        rotation: None,
    };
    DefaultValues {
        values,
        ..DefaultValues::default()
    }
}
