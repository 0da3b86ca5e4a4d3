//! A collector of OpenTelemetry: OTLP over HTTP, a connection at a time.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Attributes as text.
pub(super) type Attributes = BTreeMap<String, String>;

/// What is kept of a span.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) trace_id: String,
    pub(super) parent: String,
    pub(super) attributes: Attributes,
    /// Of the process that sent it.
    pub(super) resource: Attributes,
}

impl Span {
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Takes spans until the test ends.
pub(super) struct Collector {
    pub(super) url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<_>>>::default();
        let taken = spans.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // It may end while the test does.
                let _ = stream.and_then(|stream| serve(stream, &taken));
            }
        });
        Self { url, spans }
    }

    /// The spans so far that are such.
    pub(super) fn spans(&self, is_such: impl Fn(&Span) -> bool) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| is_such(span)).cloned().collect()
    }
}

fn serve(stream: TcpStream, spans: &Mutex<Vec<Span>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            request += &line;
        }
        assert!(request.starts_with("post /v1/traces http/1.1"), "{request}");
        assert!(
            request.contains("content-type: application/x-protobuf"),
            "{request}"
        );
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        spans.lock().unwrap().extend(read(request));
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        reader.get_mut().write_all(answer)?;
    }
}

fn read(request: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    request.resource_spans.into_iter().flat_map(|of_resource| {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        let of_scopes = of_resource.scope_spans.into_iter();
        of_scopes
            .flat_map(|scope| scope.spans)
            .map(move |span| Span {
                name: span.name,
                trace_id: hex(&span.trace_id),
                parent: hex(&span.parent_span_id),
                attributes: attributes(span.attributes),
                resource: resource.clone(),
            })
    })
}

fn attributes(of: Vec<KeyValue>) -> Attributes {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        other => panic!("{other:?}"),
    };
    of.into_iter().map(|it| (it.key, text(it.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
