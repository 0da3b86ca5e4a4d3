//! Export of spans to the platform team's collector, by OTLP over HTTP.
//!
//! Nobody waits for the collector. Spans that have ended go into a queue of bounded size, from
//! which a thread sends them; when the queue is full, or the collector does not take them, they are
//! dropped.

use super::client::{self, Client};
use axum::http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::path::PathBuf;
use std::time::Duration;

/// How long what is in the queue at the end may take to be sent.
pub const FLUSH: Duration = Duration::from_secs(2);

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector's base URL.
    pub endpoint: Uri,
    /// A file with the CAs that sign the collector's certificate; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// Which part of the traces that begin here is exported. Of others the caller has decided.
    pub ratio: f64,
    /// The replica.
    pub identity: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is a pod, which then has the replica's name.
    pub is_pod: bool,
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// No client.
    #[error("--otlp-endpoint: {0}")]
    Client(#[from] client::CollectorError),
    /// A standard variable has a value that the exporter does not take.
    #[error("--otlp-endpoint: {0}; look at the variables OTEL_EXPORTER_OTLP_*")]
    Exporter(#[from] ExporterBuildError),
}

/// Begins; within a runtime, which sends.
pub(super) fn provider(settings: &TraceSettings) -> Result<SdkTracerProvider, TraceError> {
    let endpoint = settings.endpoint.to_string();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(&settings.endpoint, settings.ca.as_deref())?)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_protocol(Protocol::HttpBinary)
        // The thread would sleep meanwhile, and the queue overflow.
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(settings));
    // A standard variable, which the builder reads by itself.
    let provider = if std::env::var_os("OTEL_TRACES_SAMPLER").is_some() {
        provider
    } else {
        let of_ours = Sampler::TraceIdRatioBased(settings.ratio);
        provider.with_sampler(Sampler::ParentBased(Box::new(of_ours)))
    };
    Ok(provider.build())
}

/// What all spans have in common, by the semantic conventions of OpenTelemetry. Variables go before
/// that.
fn resource(settings: &TraceSettings) -> Resource {
    let of_pod = settings
        .is_pod
        .then(|| KeyValue::new("k8s.pod.name", settings.identity.clone()));
    let attributes = [
        KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", settings.identity.clone()),
        KeyValue::new("k8s.namespace.name", settings.namespace.clone()),
    ];
    Resource::builder()
        .with_attributes(attributes.into_iter().chain(of_pod))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}
