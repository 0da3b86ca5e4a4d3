//! HTTP/1.1 over TLS, a request at a time, by hand: a proper client would not send what is sent
//! here.

use crate::harness::Installed;
use k8s_openapi::ByteString;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// TLS over TCP.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Where the webhook is, by which path, and whom to trust.
pub(crate) struct Dialer {
    pub(crate) address: SocketAddr,
    /// The path in the webhook configuration without `/validate`, as in `/4f0c…`.
    base: String,
    config: Arc<ClientConfig>,
}

impl Dialer {
    /// Dials as the API server does: the address and path in the webhook configuration, trusting
    /// its `caBundle` alone.
    pub(crate) fn of(installed: &Installed) -> Self {
        Self::speaking(installed, rustls::ALL_VERSIONS)
    }

    /// The same, with a client certificate: the files with it and its key, in PEM.
    pub(crate) fn showing(installed: &Installed, certificate: &Path, key: &Path) -> Self {
        let certificates = CertificateDer::pem_file_iter(certificate).expect("a file");
        let certificates = certificates.collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let client = (certificates.expect("PEM"), key);
        Self::with(installed, rustls::ALL_VERSIONS, Some(client))
    }

    /// The same, with these versions of TLS.
    pub(crate) fn speaking(
        installed: &Installed,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::with(installed, versions, None)
    }

    fn with(
        installed: &Installed,
        versions: &[&'static SupportedProtocolVersion],
        client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let kind = "validatingwebhookconfiguration";
        let configuration = installed.api.get(kind, "", "pki-operator");
        let configuration = configuration.expect("the API server answers");
        let mut configuration = configuration.expect("the webhook configuration is there");
        let config = configuration["webhooks"][0]["clientConfig"].take();
        let url = config["url"].as_str().expect("a URL");
        let bundle = serde_json::from_value::<ByteString>(config["caBundle"].clone());
        let ByteString(bundle) = bundle.expect("a bundle");
        let base = url
            .strip_prefix(&format!("https://{}", installed.webhook))
            .and_then(|path| path.strip_suffix("/validate"))
            .expect("the URL of the webhook");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle) {
            roots.add(certificate.expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider has them")
            .with_root_certificates(roots);
        let config = match client {
            Some((certificates, key)) => config.with_client_auth_cert(certificates, key),
            None => Ok(config.with_no_client_auth()),
        };
        let config = config.expect("the key is that of the certificate");
        Self {
            address: installed.webhook,
            base: base.to_owned(),
            config: Arc::new(config),
        }
    }

    /// The path of the webhook, as in `/4f0c…/validate`.
    pub(crate) fn at(&self, leaf: &str) -> String {
        format!("{}{leaf}", self.base)
    }

    /// Sends the requests to another replica.
    pub(crate) fn to(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// Sends the requests without the secret path.
    pub(crate) fn of_stranger(self) -> Self {
        let base = String::new();
        Self { base, ..self }
    }

    /// A connection for this protocol, such as `h2`, after the handshake.
    pub(crate) fn dial(&self, protocol: &str) -> io::Result<Stream> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.into()];
        let server = ServerName::from(self.address.ip());
        let mut tls = ClientConnection::new(Arc::new(config), server).map_err(io::Error::other)?;
        let mut tcp = TcpStream::connect(self.address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
        tcp.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(tls, tcp))
    }
}

/// A connection to the webhook; it stays open from request to request. What is asked is asked below
/// the path of the dialer.
pub(crate) struct Webhook {
    base: String,
    stream: BufReader<Stream>,
}

impl Webhook {
    /// Connects as the API server does.
    pub(crate) fn of(installed: &Installed) -> Self {
        Self::new(&Dialer::of(installed))
    }

    /// The same, without a look at the webhook configuration.
    pub(crate) fn new(dialer: &Dialer) -> Self {
        let stream = dialer.dial("http/1.1").expect("the webhook answers");
        Self {
            base: dialer.base.clone(),
            stream: BufReader::new(stream),
        }
    }

    /// Status and body of the answer to a POST.
    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        self.send("POST", path, content_type, body)
    }

    /// Status and body of the answer to a request.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> (u16, String) {
        let length = format!("Content-Length: {}", body.len());
        let path = self.at(path);
        self.write(&[head(method, &path, content_type, &length).as_bytes(), body].concat());
        self.answer()
    }

    /// Status and body of the answer to a POST of JSON with one header more, as in `name: value`.
    pub(crate) fn post_with(&mut self, path: &str, header: &str, body: &[u8]) -> (u16, String) {
        let more = format!("{header}\r\nContent-Length: {}", body.len());
        let path = self.at(path);
        self.write(
            &[
                head("POST", &path, "application/json", &more).as_bytes(),
                body,
            ]
            .concat(),
        );
        self.answer()
    }

    /// The answer to a POST whose body has no length in the head.
    pub(crate) fn post_chunked(
        &mut self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> (u16, String) {
        let path = self.at(path);
        self.write(head("POST", &path, content_type, "Transfer-Encoding: chunked").as_bytes());
        for chunk in body.chunks(65_536) {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            // The server need not take the rest once it has answered.
            if self.stream.get_mut().write_all(&framed).is_err() {
                break;
            }
        }
        self.answer()
    }

    /// The answer to the head of a POST alone, which announces a body of this size.
    pub(crate) fn announce(
        &mut self,
        path: &str,
        content_type: &str,
        size: usize,
    ) -> (u16, String) {
        self.begin(path, content_type, size);
        self.answer()
    }

    /// Sends the head of a POST, and waits for nothing.
    pub(crate) fn begin(&mut self, path: &str, content_type: &str, size: usize) {
        let length = format!("Content-Length: {size}");
        let path = self.at(path);
        self.write(head("POST", &path, content_type, &length).as_bytes());
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn write(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_mut();
        stream
            .write_all(bytes)
            .and_then(|()| stream.flush())
            .expect("the webhook reads");
    }

    fn answer(&mut self) -> (u16, String) {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let header = self.line().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the body comes");
        (
            status.expect("a status"),
            String::from_utf8(body).expect("text"),
        )
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer comes");
        line.trim_end().to_owned()
    }
}

/// The head of a request, with this header about its length.
pub(crate) fn head(method: &str, path: &str, content_type: &str, length: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: webhook\r\nContent-Type: {content_type}\r\n{length}\r\n\r\n"
    )
}
