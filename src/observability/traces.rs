//! Traces: each admission request and each reconciliation of a Pki has an id, which is on every log
//! record about it.
//!
//! The ids are those of W3C Trace Context. An API server that traces its own requests sends one, so
//! that one id leads from a `kubectl apply` to the log of the operator. A collector of the platform
//! team gets spans ([`otlp`]) with the attributes that are named here and no others.

use crate::util::text;
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use std::sync::OnceLock;

mod client;
pub mod otlp;

/// Process-wide, as the log is.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends spans to the collector from now on, if there is one.
pub fn init(settings: Option<&otlp::TraceSettings>) -> Result<Export, otlp::TraceError> {
    let provider = settings.map(otlp::provider).transpose()?;
    if let Some(provider) = &provider {
        // Set once, before anything is traced.
        let _ = TRACER.set(tracer(provider));
    }
    Ok(Export(provider))
}

fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer(env!("CARGO_PKG_NAME"))
}

/// Without a collector: ids alone.
fn tracer_of_ids() -> SdkTracer {
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
    tracer(&provider.build())
}

/// The exporter of spans, if there is one.
#[derive(Debug)]
#[must_use]
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Sends the remaining spans, within [`otlp::FLUSH`]. Nothing may be traced after that.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let flush = move || provider.shutdown_with_timeout(otlp::FLUSH);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(flush).await {
            tracing::warn!(%error, "failed to export the last traces");
        }
    }
}

/// The longest text in a span. Objects and errors may be of any length.
const MAX_TEXT_BYTES: usize = 1024;

fn shown(text: &str) -> String {
    text::cut(&text::line(text), MAX_TEXT_BYTES)
}

/// A piece of work with a trace id, an OpenTelemetry span, which ends when it is dropped.
#[derive(Debug)]
pub struct Work(Span);

impl Work {
    /// A request to a webhook, in the trace of its headers, if there is one.
    pub fn request(webhook: &'static str, headers: &HeaderMap) -> Self {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        Self::begin(webhook, SpanKind::Server, &caller)
    }

    /// The reconciliation of a Pki.
    pub fn reconcile() -> Self {
        Self::begin("reconcile", SpanKind::Internal, &Context::new())
    }

    fn begin(name: &'static str, kind: SpanKind, caller: &Context) -> Self {
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        let tracer = TRACER.get_or_init(tracer_of_ids);
        Self(tracer.build_with_context(builder, caller))
    }

    /// Adds an attribute to the span, if that is exported.
    pub fn note<T: Into<Value>>(&mut self, name: &'static str, value: impl FnOnce() -> T) {
        if self.0.is_recording() {
            let value = match value().into() {
                Value::String(text) => shown(text.as_str()).into(),
                other => other,
            };
            self.0.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Marks the span as failed, if it is exported.
    pub fn fail(&mut self, error: &impl std::fmt::Display) {
        if self.0.is_recording() {
            self.0.set_status(Status::error(shown(&error.to_string())));
        }
    }

    /// The id that is on its log records.
    pub fn trace_id(&self) -> TraceId {
        self.0.span_context().trace_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(traceparent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent.parse().unwrap());
        Work::request("validate", &headers).trace_id().to_string()
    }

    #[test]
    fn the_id_is_that_of_the_caller_if_it_sends_one() {
        let theirs = "0af7651916cd43dd8448eb211c80319c";
        for flags in ["00", "01"] {
            assert_eq!(id(&format!("00-{theirs}-b7ad6b7169203331-{flags}")), theirs);
        }
        for unreadable in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let ours = id(unreadable);
            assert_ne!(ours, theirs);
            assert_ne!(ours.trim_matches('0'), "", "{unreadable}");
        }
    }

    #[test]
    fn a_text_in_a_span_is_one_line_and_not_too_long() {
        assert_eq!(shown("app1/größe"), "app1/größe");
        assert_eq!(shown("a\u{1b}[2J\nb"), r"a\u{1b}[2J\nb");
        let long = shown(&"\u{202e}ä".repeat(100_000));
        assert!(
            long.len() <= MAX_TEXT_BYTES && long.ends_with('…'),
            "{long}"
        );
    }

    #[test]
    fn every_piece_of_work_has_an_id_of_its_own() {
        let [first, second] = [(); 2].map(|()| Work::reconcile().trace_id());
        assert_ne!(first, second);
        let request = Work::request("validate", &HeaderMap::new());
        assert_ne!(request.trace_id(), TraceId::INVALID);
    }
}
