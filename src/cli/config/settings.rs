//! The settings of each part, from the flags.

use super::{CaSource, Config};
use crate::controllers::ca::CaSettings;
use crate::controllers::ca::rotation::RotationTimes;
use crate::controllers::pki::PkiSettings;
use crate::controllers::restart::RestartSettings;
use crate::controllers::trust_bundle::TrustBundleSettings;
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::observability::traces::otlp::TraceSettings;
use crate::policy::{self, range};
use crate::webhook::server::limits::Limits;
use crate::webhook::server::serving_cert::{Replicas, ServingCertSettings};
use jiff::SignedDuration;

impl Config {
    /// The limits of the webhook's clients.
    pub fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections as usize,
            requests: self.max_requests as usize,
            watch_age: self.max_watch_age_seconds,
        }
    }

    /// The settings of the CA.
    pub fn ca(&self) -> CaSettings {
        CaSettings {
            secret: Key::new(self.namespace.clone(), self.ca_secret.clone()),
            is_brought: self.ca == CaSource::Bring,
            lifetime: SignedDuration::from_hours(self.ca_lifetime_hours.into()),
            times: RotationTimes {
                step: SignedDuration::from_secs(self.ca_step_seconds.into()),
                wait: SignedDuration::from_secs(self.ca_wait_seconds.into()),
            },
            retention: SignedDuration::from_secs(self.ca_key_retention_seconds.into()),
        }
    }

    /// The settings of traces, if they are exported.
    pub fn otlp(&self) -> Option<TraceSettings> {
        Some(TraceSettings {
            endpoint: self.otlp_endpoint.clone()?,
            ca: self.otlp_ca.clone(),
            ratio: self.otlp_sampling_ratio,
            identity: self.identity.clone(),
            namespace: self.namespace.clone(),
            is_pod: !self.api_server_address.is_empty(),
        })
    }

    /// The settings of the trust bundle.
    pub fn trust(&self) -> TrustBundleSettings {
        TrustBundleSettings {
            name: self.trust_config_map.clone(),
            reminder: self.reminder_seconds,
        }
    }

    /// The namespaces to serve.
    pub fn scope(&self) -> Scope {
        Scope::of(self.namespaces.iter().cloned())
    }

    /// The rules that no policy changes.
    pub fn rules(&self) -> policy::Settings {
        let own = range(&self.api_server_address).into_iter();
        policy::Settings {
            cluster_domain: self.cluster_domain.trim_matches('.').to_ascii_lowercase(),
            namespace: self.namespace.clone(),
            reserved_secrets: vec![self.ca_secret.clone(), self.webhook_ca_secret.clone()],
            has_secrets: self.secrets,
            reserved_addresses: own.chain(self.reserved_addresses.clone()).collect(),
        }
    }

    /// The settings of the reconciler.
    pub fn reconcile(&self) -> PkiSettings {
        PkiSettings {
            reminder: self.reminder_seconds,
            has_renewal_events: self.renewal_events,
        }
    }

    /// The settings of restarts, if workloads are restarted.
    pub fn restarts(&self) -> Option<RestartSettings> {
        let window = SignedDuration::try_from(self.restart_spread_seconds);
        self.restart_on_renewal.then(|| RestartSettings {
            window: window.unwrap_or(SignedDuration::MAX),
            reminder: self.reminder_seconds,
        })
    }

    /// The settings of the webhook's serving certificate.
    pub fn webhook(&self) -> ServingCertSettings {
        ServingCertSettings {
            secret: Key::new(self.namespace.clone(), self.webhook_ca_secret.clone()),
            configuration: self.webhook_configuration.clone(),
            hosts: self.webhook_hosts(),
            overlap: SignedDuration::from_secs(self.webhook_ca_overlap_seconds.into()),
            replicas: self.replicas(),
        }
    }

    /// The pods of the operator, if it runs in pods.
    fn replicas(&self) -> Option<Replicas> {
        Some(Replicas {
            namespace: self.namespace.clone(),
            selector: self.replica_selector.clone()?,
        })
    }

    /// The hosts of the serving certificate.
    fn webhook_hosts(&self) -> Vec<String> {
        if self.webhook_host.is_empty() {
            vec![format!("pki-operator.{}.svc", self.namespace)]
        } else {
            self.webhook_host.clone()
        }
    }
}
