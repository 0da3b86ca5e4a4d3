//! The stream of a connection, under TLS and HTTP.

use super::service::Watched;
use super::{Connections, Entry};
use axum_server::accept::Accept;
use futures::future::{self, Either, Ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Accepts as many connections as there may be, and hands them on to the acceptor inside.
#[derive(Clone, Debug)]
pub(in crate::webhook::server) struct Bounded<A> {
    pub(in crate::webhook::server) inner: A,
    pub(in crate::webhook::server) connections: Arc<Connections>,
}

impl<A, S> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<Stream, Watched<S>>,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Either<A::Future, Ready<io::Result<(Self::Stream, Self::Service)>>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        // Otherwise the first answer waits 40 ms for the client to acknowledge the session tickets.
        // A client that is gone already has no address.
        let peer = stream.set_nodelay(true).and_then(|()| stream.peer_addr());
        let peer = match peer {
            Ok(peer) => peer.ip(),
            Err(error) => return Either::Right(future::ready(Err(error))),
        };
        let (entry, closed) = self.connections.add(peer, Instant::now());
        let entry = Arc::new(entry);
        let stream = Stream {
            inner: stream,
            closed: Box::pin(closed.cancelled_owned()),
            _entry: entry.clone(),
        };
        let inner = service;
        Either::Left(self.inner.accept(stream, Watched { inner, entry }))
    }
}

#[derive(Debug)]
pub(in crate::webhook::server) struct Stream {
    inner: TcpStream,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _entry: Arc<Entry>,
}

impl Stream {
    /// The stream inside, if it is not to break. Wakes the task when it is.
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.closed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(Pin::new(&mut self.inner)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
