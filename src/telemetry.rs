//! Traces: each admission request and each look at a Pki has an id, which is on every log record about it.
//!
//! The ids are those of W3C Trace Context. An API server that traces its own requests sends one along, and it is taken over,
//! so that one id leads from a `kubectl apply` to what the operator logged of it.

use axum::http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use std::sync::LazyLock;

/// Process-wide, as the log is.
static TRACER: LazyLock<SdkTracer> = LazyLock::new(|| {
    let ids_alone = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
    ids_alone.build().tracer(env!("CARGO_PKG_NAME"))
});

/// A piece of work with a trace id; in OpenTelemetry's words, a span. It ends when it is dropped.
#[derive(Debug)]
pub struct Work(Span);

impl Work {
    /// A request to a webhook, as a part of what its headers tell of, if they do.
    pub fn request(webhook: &'static str, headers: &HeaderMap) -> Self {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        Self::begin(webhook, SpanKind::Server, &caller)
    }

    /// A look at a Pki.
    pub fn look() -> Self {
        Self::begin("reconcile", SpanKind::Internal, &Context::new())
    }

    fn begin(name: &'static str, kind: SpanKind, caller: &Context) -> Self {
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Self(TRACER.build_with_context(builder, caller))
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
    fn every_piece_of_work_has_an_id_of_its_own() {
        let [first, second] = [(); 2].map(|()| Work::look().trace_id());
        assert_ne!(first, second);
        let request = Work::request("mutate", &HeaderMap::new());
        assert_ne!(request.trace_id(), TraceId::INVALID);
    }
}
