//! The requests of a connection.

use super::Entry;
use axum::http::{Extensions, Request, Response};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

#[derive(Clone, Copy, Debug)]
pub(in crate::webhook::server) struct Client(u64);

impl Client {
    pub(in crate::webhook::server) fn of<B>(request: &Request<B>) -> u64 {
        let client = request.extensions().get::<Self>();
        client.expect("every connection is watched").0
    }
}

/// Notes that the request with these extensions has come in full.
pub(in crate::webhook::server) fn mark_complete(extensions: &Extensions) {
    let entry = extensions.get::<Arc<Entry>>();
    let entry = entry.expect("every connection is watched");
    entry.update(|state| state.is_complete = true);
}

/// Notes the requests of a connection, and passes them on with it.
#[derive(Clone, Debug)]
pub(in crate::webhook::server) struct Watched<S> {
    pub(super) inner: S,
    pub(super) entry: Arc<Entry>,
}

impl<S, R, B> Service<Request<R>> for Watched<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        request.extensions_mut().insert(Client(self.entry.number));
        request.extensions_mut().insert(self.entry.clone());
        let flight = Flight::begin(self.entry.clone());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            flight.end(matches!(&response, Ok(it) if it.status().is_success()));
            response
        })
    }
}

/// A request that is under way. Some end without an answer.
struct Flight {
    entry: Arc<Entry>,
    is_success: bool,
}

impl Flight {
    fn begin(entry: Arc<Entry>) -> Self {
        entry.update(|state| {
            state.has_asked = true;
            state.in_flight += 1;
        });
        let is_success = false;
        Self { entry, is_success }
    }

    fn end(mut self, is_success: bool) {
        self.is_success = is_success;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.entry.update(|state| {
            state.in_flight -= 1;
            state.is_complete = false;
            state.was_answered |= self.is_success;
        });
    }
}
