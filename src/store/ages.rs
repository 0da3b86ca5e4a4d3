//! The age of each watch: the time since the API server last confirmed it.
//!
//! A watch that is refused or hangs changes nothing: the last state of the cache stays in force. So
//! each watch has an age. The age is zero when the API server answers a list or a watch with
//! success, and when something comes on the watch. A bookmark comes about once a minute. The
//! library hides bookmarks from its callers, so the HTTP answers are observed.

use super::Watched;
use crate::util::sync::lock;
use axum::http::{Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::Client;
use kube::client::Body;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower_service::Service;

/// The ages of all watches. Of one resource that is watched namespace by namespace, the watch that
/// was confirmed last counts: a namespace that may not be read is named
/// [elsewhere](crate::k8s::scope::Scope::refused).
#[derive(Debug)]
pub(super) struct Ages(BTreeMap<Watched, Arc<Mutex<Instant>>>);

impl Default for Ages {
    fn default() -> Self {
        let now = Instant::now();
        let ages = Watched::ALL.map(|watched| (watched, Arc::new(Mutex::new(now))));
        Self(ages.into())
    }
}

impl Ages {
    /// Time since this watch was confirmed, or since this process began to wait for that.
    pub(super) fn of(&self, watched: Watched, now: Instant) -> Duration {
        let confirmed = self.0.get(&watched).map(|age| *lock(age));
        confirmed.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// A client for this watch, which notes what the API server confirms.
    pub(super) fn client(&self, watched: Watched, client: &Client) -> Client {
        let confirmed = self
            .0
            .get(&watched)
            .cloned()
            .unwrap_or_else(|| Arc::new(Mutex::new(Instant::now())));
        let namespace = client.default_namespace().to_owned();
        let client = client.clone();
        Client::new(Noting { client, confirmed }, namespace)
    }
}

/// Hands requests on, and notes when they were answered.
struct Noting {
    client: Client,
    confirmed: Arc<Mutex<Instant>>,
}

impl Service<Request<Body>> for Noting {
    type Response = Response<UnsyncBoxBody<axum::body::Bytes, kube::Error>>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, confirmed) = (self.client.clone(), self.confirmed.clone());
        async move {
            let response = client.send(request).await?;
            let is_success = response.status().is_success();
            let note = move || {
                if is_success {
                    *lock(&confirmed) = Instant::now();
                }
            };
            note();
            let noted = |body: Body| {
                body.map_frame(move |frame| {
                    note();
                    frame
                })
            };
            Ok(response.map(|body| noted(body).boxed_unsync()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use futures::StreamExt as _;
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};
    use std::io;

    type Pieces = UnboundedReceiver<io::Result<&'static str>>;

    /// An API server that answers one request with this.
    struct Server(Option<(StatusCode, Pieces)>);

    impl Service<Request<Body>> for Server {
        type Response = Response<axum::body::Body>;
        type Error = io::Error;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let answer = self.0.take().map(|(status, pieces)| {
                let mut response = Response::new(axum::body::Body::from_stream(pieces));
                *response.status_mut() = status;
                response
            });
            std::future::ready(answer.ok_or_else(|| io::Error::other("no answer")))
        }
    }

    #[tokio::test]
    async fn an_answer_and_whatever_comes_on_a_watch_confirm_it_and_a_refusal_does_not() {
        for (status, confirms) in [(StatusCode::OK, true), (StatusCode::FORBIDDEN, false)] {
            let (sender, pieces) = unbounded();
            let server = Client::new(Server(Some((status, pieces))), "default");
            let ages = Ages::default();
            let client = ages.client(Watched::Pkis, &server);
            let is_confirmed = || {
                let before = Instant::now();
                let age = ages.0.get(&Watched::Pkis).map(|age| *lock(age));
                age.is_some_and(|age| before.duration_since(age) < Duration::from_millis(20))
            };
            let pause = || tokio::time::sleep(Duration::from_millis(40));
            pause().await;
            assert!(!is_confirmed());
            let request = Request::get("/watch").body(Body::empty()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(is_confirmed(), confirms, "{status}: the answer");
            pause().await;
            assert!(!is_confirmed());
            sender.unbounded_send(Ok("a bookmark")).unwrap();
            let mut body = response.into_body().into_data_stream();
            assert!(body.next().await.is_some());
            assert_eq!(is_confirmed(), confirms, "{status}: the bookmark");
            let others = ages.of(Watched::Pods, Instant::now());
            assert!(others >= Duration::from_millis(80), "{others:?}");
            let request = Request::get("/watch").body(Body::empty()).unwrap();
            pause().await;
            client.send(request).await.unwrap_err();
            assert!(!is_confirmed(), "no answer");
        }
    }
}
