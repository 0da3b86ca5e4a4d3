//! Export of spans to the platform team's collector, by OTLP over HTTP.
//!
//! No work waits for the collector. Spans that have ended go into a bounded queue, from which a
//! thread sends them. If the queue is full, or the collector fails, they are dropped.

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

/// How long the rest of the queue may take to be sent at the end.
pub const FLUSH: Duration = Duration::from_secs(2);

/// The settings of the export.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector's base URL.
    pub endpoint: Uri,
    /// A file with the CAs that sign the collector's certificate; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// The exported part of the traces that begin here. The caller decides about others.
    pub ratio: f64,
    /// The replica.
    pub identity: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is a pod, which then has the replica's name.
    pub is_pod: bool,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// There is no client.
    #[error("--otlp-endpoint: {0}")]
    Client(#[from] client::CollectorError),
    /// A standard variable has a value that the exporter does not take.
    #[error("--otlp-endpoint: {0}; check the variables OTEL_EXPORTER_OTLP_*")]
    Exporter(#[from] ExporterBuildError),
}

/// The provider of spans. Call it within the runtime that is to send them.
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

/// The attributes of all spans, by the semantic conventions of OpenTelemetry. Variables override
/// them.
fn resource(settings: &TraceSettings) -> Resource {
    let replica = settings.identity.clone();
    let mut attributes = vec![
        KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.clone()),
        KeyValue::new("k8s.namespace.name", settings.namespace.clone()),
    ];
    if settings.is_pod {
        attributes.push(KeyValue::new("k8s.pod.name", replica));
    }
    Resource::builder()
        .with_attributes(attributes)
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}
