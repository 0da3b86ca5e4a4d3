//! The part of the client that reads the `Date` of every response.

use super::{Clock, Reading};
use axum::http::{Request, Response, header};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Compares the clock with every response that a client gets.
#[derive(Clone, Debug)]
pub struct ClockLayer(pub Arc<Clock>);

/// A client whose responses are [compared](ClockLayer).
#[derive(Clone, Debug)]
pub struct ComparedService<S> {
    inner: S,
    clock: Arc<Clock>,
}

impl<S> Layer<S> for ClockLayer {
    type Service = ComparedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ComparedService {
            inner,
            clock: self.0.clone(),
        }
    }
}

impl<S, Q, R> Service<Request<Q>> for ComparedService<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (clock, sent) = (self.clock.clone(), Instant::now());
        let response = self.inner.call(request);
        let compared = response.map(move |response| {
            if let Ok(response) = &response {
                let date = response.headers().get(header::DATE);
                let date = date.and_then(|date| date.to_str().ok());
                clock.compare(date, sent, Reading::take());
            }
            response
        });
        compared.boxed()
    }
}
