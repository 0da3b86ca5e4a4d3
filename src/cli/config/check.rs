//! Checks values that are valid by themselves, but not together.

use super::{Config, ConfigError, Conflict};

/// The most steps of a rotation of the CA, which begins when a third of a CA's life is left.
const MAX_STEPS: i32 = 9;

impl Config {
    /// Checks all values together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let one_name = |other: &str, flag, kind| {
            let name = self.ca_secret.clone();
            (name == other).then_some(Conflict::OneName { flag, kind, name })
        };
        let conflicts = [
            one_name(&self.webhook_ca_secret, "webhook-ca-secret", "Secret"),
            // Beside the CA's Secret there is a `ConfigMap` of its name.
            one_name(&self.trust_config_map, "trust-config-map", "ConfigMap"),
            self.one_port(),
            self.ca_steps(),
        ];
        let conflicts: Vec<_> = conflicts.into_iter().flatten().collect();
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Conflicts(conflicts))
    }

    fn one_port(&self) -> Option<Conflict> {
        let (listen, metrics) = (self.listen, self.metrics_listen);
        let meet = listen.ip() == metrics.ip()
            || listen.ip().is_unspecified()
            || metrics.ip().is_unspecified();
        let is_chosen = listen.port() != 0;
        (is_chosen && meet && listen.port() == metrics.port())
            .then_some(Conflict::OnePort { listen, metrics })
    }

    fn ca_steps(&self) -> Option<Conflict> {
        let ca = self.ca();
        let (lifetime, step) = (ca.lifetime, ca.times.step);
        (lifetime < step * MAX_STEPS).then_some(Conflict::CaSteps { lifetime, step })
    }
}
