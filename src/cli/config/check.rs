//! Values that are right by themselves, but not together.

use super::{Config, ConfigError, Conflict};

/// So many steps a rotation of the CA may need until it is over: a third of a CA's life is left
/// when it begins.
const STEPS: i32 = 9;

impl Config {
    /// Whether all goes together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let conflicts: Vec<_> = [
            self.one_secret(),
            self.one_config_map(),
            self.one_port(),
            self.ca_steps(),
        ]
        .into_iter()
        .flatten()
        .collect();
        if conflicts.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Conflicts(conflicts))
        }
    }

    fn one_secret(&self) -> Option<Conflict> {
        let name = &self.ca_secret;
        (*name == self.webhook_ca_secret).then(|| Conflict::OneName {
            flags: ["ca-secret", "webhook-ca-secret"],
            kind: "Secret",
            name: name.clone(),
        })
    }

    /// Beside the CA's Secret there is a `ConfigMap` of its name.
    fn one_config_map(&self) -> Option<Conflict> {
        let name = &self.ca_secret;
        (*name == self.trust_config_map).then(|| Conflict::OneName {
            flags: ["ca-secret", "trust-config-map"],
            kind: "ConfigMap",
            name: name.clone(),
        })
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
        (lifetime < step * STEPS).then_some(Conflict::CaSteps { lifetime, step })
    }
}
