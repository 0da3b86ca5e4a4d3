//! The connections of a listener: how many there may be, how long each may be idle, and which makes
//! way for another.
//!
//! Closing is pure judgement about what is known of each ([`Known`]). It is carried out from below:
//! the stream under TLS and HTTP breaks, which ends a handshake, a head or a body alike, whatever
//! the client has sent or not sent.

use crate::observability::metrics::Metrics;
use crate::util::sync::lock;
use axum::http::{Extensions, Request, Response};
use axum_server::accept::Accept;
use futures::future::{self, Either, Ready};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower_service::Service;

/// A connection that is younger is given the time to say what it wants, before it counts as one
/// that wants nothing.
const GRACE: Duration = Duration::from_secs(1);
/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// From connecting to the end of the first request's head.
    pub first_request: Duration,
    /// From an answer to the end of the next request's head; meanwhile it may read the answer.
    pub next_request: Duration,
}

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    listener: &'static str,
    most: usize,
    allowance: Allowance,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    known: Known,
    cut: CancellationToken,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    peer: IpAddr,
    /// When it was opened, or its last request began or ended.
    since: Instant,
    has_asked: bool,
    /// Whether there was a request that we could make sense of.
    was_answered: bool,
    in_flight: u32,
    /// Whether its request has come in full: that there is no answer yet is not its client's doing.
    is_owed: bool,
}

impl Known {
    fn new(peer: IpAddr, now: Instant) -> Self {
        Self {
            peer,
            since: now,
            has_asked: false,
            was_answered: false,
            in_flight: 0,
            is_owed: false,
        }
    }

    /// What takes long in a request ends with the request.
    fn is_overdue(&self, allowance: Allowance, now: Instant) -> bool {
        let allowed = if self.has_asked {
            allowance.next_request
        } else {
            allowance.first_request
        };
        self.in_flight == 0 && now.saturating_duration_since(self.since) > allowed
    }
}

/// Which of them makes way when there are as many as there may be: of those from an address that
/// has more than half, if there is one, otherwise of all, one that never said anything sensible;
/// otherwise, of those that were answered before and those that have just come, whichever are more,
/// the one of which nothing was heard for the longest. One that waits for an answer, to a request
/// that came in full or a moment ago, comes last.
///
/// So whoever opens connections in masses loses their own; who has just come, as the API server
/// does in a flood, has the time of half of those before to be answered; and who was answered does
/// not make way for strangers alone.
fn displaced<K: Copy>(
    connections: impl Iterator<Item = (K, Known)> + Clone,
    now: Instant,
) -> Option<K> {
    let mut counts = HashMap::<_, usize>::new();
    for (_, known) in connections.clone() {
        *counts.entry(known.peer).or_default() += 1;
    }
    let half = counts.values().sum::<usize>() / 2;
    let crowd = counts
        .iter()
        .find(|(_, count)| **count > half)
        .map(|(peer, _)| *peer);
    let crowd = connections.filter(|(_, known)| crowd.is_none_or(|peer| known.peer == peer));
    let answered = crowd.clone().filter(|(_, known)| known.was_answered);
    let are_most_answered = 2 * answered.count() >= crowd.clone().count();
    crowd
        .min_by_key(|(_, known)| {
            let is_new = now.saturating_duration_since(known.since) < GRACE;
            let is_busy = known.is_owed || is_new && known.in_flight > 0;
            let is_sensible = known.was_answered || is_new || is_busy;
            let is_of_few = known.was_answered != are_most_answered;
            (is_sensible, is_of_few, is_busy, known.since)
        })
        .map(|(key, _)| key)
}

/// A host may have as many IPv6 addresses as it likes in its network.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Connections {
    pub(super) fn new(
        listener: &'static str,
        most: usize,
        allowance: Allowance,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            listener,
            most,
            allowance,
            metrics,
            open: Mutex::default(),
        })
    }

    /// Adds a connection, in the place of another if need be.
    fn add(self: &Arc<Self>, peer: IpAddr, now: Instant) -> (Entry, CancellationToken) {
        let cut = CancellationToken::new();
        let connection = Connection {
            known: Known::new(origin(peer), now),
            cut: cut.clone(),
        };
        let mut open = lock(&self.open);
        while open.by_number.len() >= self.most {
            let all = open
                .by_number
                .iter()
                .map(|(number, it)| (*number, it.known));
            let Some(number) = displaced(all, now) else {
                break;
            };
            self.close(&mut open, number, "displaced");
        }
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, connection);
        self.count(&open);
        let connections = self.clone();
        (
            Entry {
                connections,
                number,
            },
            cut,
        )
    }

    /// Closes what is idle for too long, for as long as it is polled.
    pub(super) async fn sweep<T>(&self) -> T {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            let mut open = lock(&self.open);
            let overdue = open.by_number.iter();
            let overdue = overdue.filter(|(_, it)| it.known.is_overdue(self.allowance, now));
            let overdue: Vec<_> = overdue.map(|(number, _)| *number).collect();
            for number in overdue {
                self.close(&mut open, number, "idle");
            }
            self.count(&open);
        }
    }

    fn close(&self, open: &mut Open, number: u64, reason: &'static str) {
        if let Some(connection) = open.by_number.remove(&number) {
            connection.cut.cancel();
            self.metrics.listeners.closed(self.listener, reason);
        }
    }

    fn count(&self, open: &Open) {
        self.metrics
            .listeners
            .open(self.listener, open.by_number.len());
    }
}

/// An entry among the connections, until it is dropped.
#[derive(Debug)]
struct Entry {
    connections: Arc<Connections>,
    number: u64,
}

impl Entry {
    fn note(&self, happened: impl FnOnce(&mut Known)) {
        if let Some(it) = lock(&self.connections.open).by_number.get_mut(&self.number) {
            it.known.since = Instant::now();
            happened(&mut it.known);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.by_number.remove(&self.number);
        self.connections.count(&open);
    }
}

/// Lets in as many connections as there may be, and hands them on to the acceptor inside.
#[derive(Clone, Debug)]
pub(super) struct Bounded<A> {
    pub(super) inner: A,
    pub(super) connections: Arc<Connections>,
}

impl<A, S> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<Stream, Watched<S>>,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Either<A::Future, Ready<io::Result<(Self::Stream, Self::Service)>>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let peer = match stream.peer_addr() {
            Ok(peer) => peer.ip(),
            // It is gone already.
            Err(error) => return Either::Right(future::ready(Err(error))),
        };
        // Else the first answer waits for the client to acknowledge the session tickets, which it
        // does 40 ms later.
        if let Err(error) = stream.set_nodelay(true) {
            return Either::Right(future::ready(Err(error)));
        }
        let (entry, cut) = self.connections.add(peer, Instant::now());
        let entry = Arc::new(entry);
        let stream = Stream {
            inner: stream,
            cut: Box::pin(cut.cancelled_owned()),
            _entry: entry.clone(),
        };
        let inner = service;
        Either::Left(self.inner.accept(stream, Watched { inner, entry }))
    }
}

/// A stream that breaks when it has to make way.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _entry: Arc<Entry>,
}

impl Stream {
    /// Also wakes the task when it is time.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
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

/// The connection by which a request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(u64);

impl Client {
    pub(super) fn of<B>(request: &Request<B>) -> u64 {
        let client = request.extensions().get::<Self>();
        client.expect("every connection is watched").0
    }
}

/// Tells the connection of a request that this has come in full.
pub(super) fn came_in_full(extensions: &Extensions) {
    let entry = extensions.get::<Arc<Entry>>();
    entry
        .expect("every connection is watched")
        .note(|known| known.is_owed = true);
}

/// A service that tells the connection of its requests, and the requests of their connection.
#[derive(Clone, Debug)]
pub(super) struct Watched<S> {
    inner: S,
    entry: Arc<Entry>,
}

impl<S, R, B> Service<Request<R>> for Watched<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.inner.poll_ready(cx))?;
        Poll::Ready(Ok(()))
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

/// A request that is under way. It may end without an answer, too.
struct Flight {
    entry: Arc<Entry>,
    makes_sense: bool,
}

impl Flight {
    fn begin(entry: Arc<Entry>) -> Self {
        entry.note(|known| {
            known.has_asked = true;
            known.in_flight += 1;
        });
        let makes_sense = false;
        Self { entry, makes_sense }
    }

    fn end(mut self, makes_sense: bool) {
        self.makes_sense = makes_sense;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.entry.note(|known| {
            known.in_flight -= 1;
            known.is_owed = false;
            known.was_answered |= self.makes_sense;
        });
    }
}

#[cfg(test)]
mod tests;
