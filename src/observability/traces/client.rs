//! The HTTP client that sends spans to the collector. Failures are logged now and then.

use crate::util::rate_limit::{Bucket, Limit};
use crate::util::sync::lock;
use crate::util::text;
use async_trait::async_trait;
use axum::http::Uri;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long the collector may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer, which usually has a few bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How often a failure of the collector is logged.
const LOG_LIMIT: Limit = Limit {
    burst: 1,
    period: Duration::from_secs(300),
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectorError {
    /// The system has no CAs.
    #[error(
        "there are no CAs on this system ({0}); name a file with those of the collector with --otlp-ca"
    )]
    NoSystemCas(io::Error),
    /// The file cannot be read.
    #[error("cannot read certificates in PEM from --otlp-ca {}: {source}", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The file has no certificate, or one that is unusable.
    #[error("--otlp-ca {} holds no usable certificate", .0.display())]
    NoCa(PathBuf),
}

/// Sends in the runtime in which it was made, for callers of any thread.
pub(super) struct Client {
    runtime: Handle,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    failure: Mutex<FailureLog>,
}

/// The state of the log about the collector.
#[derive(Default)]
struct FailureLog {
    bucket: Bucket,
    is_logged: bool,
}

impl Client {
    pub(super) fn new(endpoint: &Uri, ca: Option<&Path>) -> Result<Self, CollectorError> {
        let roots = ca.map(roots).transpose()?;
        let is_secure = endpoint.scheme_str() == Some("https");
        let tls = ClientConfig::builder();
        let tls = match roots {
            Some(roots) => tls.with_root_certificates(roots),
            None if is_secure => tls
                .with_native_roots()
                .map_err(CollectorError::NoSystemCas)?,
            None => tls.with_root_certificates(RootCertStore::empty()),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            runtime: Handle::current(),
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            endpoint: endpoint.clone(),
            failure: Mutex::default(),
        })
    }

    fn log(&self, sent: &Result<Response<Bytes>, HttpError>, now: Instant) {
        let why = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(text::error_chain(error.as_ref())),
        };
        if !lock(&self.failure).admits(why.is_some(), now) {
            return;
        }
        if let Some(why) = why {
            let endpoint = &self.endpoint;
            tracing::warn!(%endpoint, why, "the collector does not accept traces, so they are dropped");
        } else {
            tracing::info!("the collector accepts traces again");
        }
    }
}

impl FailureLog {
    /// Whether to log that the collector took spans, or did not.
    fn admits(&mut self, has_failed: bool, now: Instant) -> bool {
        if !has_failed {
            return std::mem::take(&mut self.is_logged);
        }
        let is_admitted = self.bucket.take(LOG_LIMIT, now).is_ok();
        self.is_logged |= is_admitted;
        is_admitted
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sending = async move {
            let answer = http.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        // Timers work within the runtime only.
        let sending = async { tokio::time::timeout(ANSWER_TIMEOUT, sending).await };
        let sent = match self.runtime.spawn(sending).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) => {
                Err(format!("it does not answer within {} s", ANSWER_TIMEOUT.as_secs()).into())
            }
            Err(error) => Err(error.into()),
        };
        self.log(&sent, Instant::now());
        sent
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.endpoint)
    }
}

fn roots(file: &Path) -> Result<RootCertStore, CollectorError> {
    let unreadable = |source| CollectorError::Ca {
        file: file.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    let (usable, unusable) = roots.add_parsable_certificates(certificates);
    if usable == 0 || unusable > 0 {
        return Err(CollectorError::NoCa(file.to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_now_and_then_and_its_end_if_it_was() {
        let (mut log, start) = (FailureLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (has_failed, seconds, is_admitted) in [
            (false, 0, false),
            (true, 5, true),
            (true, 10, false),
            (true, 304, false),
            (true, 305, true),
            (false, 310, true),
            (false, 315, false),
            (true, 320, false),
            (false, 325, false),
            (true, 605, true),
        ] {
            assert_eq!(
                log.admits(has_failed, at(seconds)),
                is_admitted,
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_file_without_usable_certificates_is_named() {
        let endpoint = Uri::from_static("https://localhost:4318");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        for file in [file.as_path(), Path::new("/nowhere.pem")] {
            let error = Client::new(&endpoint, Some(file)).unwrap_err().to_string();
            assert!(
                error.contains("--otlp-ca") && error.contains(file.to_str().unwrap()),
                "{error}"
            );
        }
    }
}
