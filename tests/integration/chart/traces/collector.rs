//! A collector of OpenTelemetry: OTLP over HTTP or HTTPS, a connection at a time.

use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
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
        Self::listen("http", serve)
    }

    /// With a certificate for its address, of this CA.
    pub(super) fn start_tls(authority: &Authority) -> Self {
        let config = Arc::new(server_config(authority));
        Self::listen("https", move |stream, spans| {
            let tls = ServerConnection::new(config.clone()).unwrap();
            serve(StreamOwned::new(tls, stream), spans)
        })
    }

    fn listen(
        scheme: &str,
        serve: impl Fn(TcpStream, &Mutex<Vec<Span>>) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
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

fn server_config(authority: &Authority) -> ServerConfig {
    let request = LeafRequest {
        common_name: Some("collector".into()),
        former_common_name: None,
        dns_names: vec![],
        ip_addresses: vec![IpAddr::from([127, 0, 0, 1])],
        uris: vec![],
        usages: vec![Usage::ServerAuth],
        duration: SignedDuration::from_hours(1),
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    };
    let leaf = authority.issue(&request, Timestamp::now()).unwrap();
    let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(leaf.private_key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
        .unwrap()
}

fn serve(stream: impl Read + Write, spans: &Mutex<Vec<Span>>) -> io::Result<()> {
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
