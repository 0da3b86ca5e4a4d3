//! The requests to the webhook: their number, their size, and their time.

use crate::observability::metrics::Metrics;
use crate::util::sync::lock;
use crate::webhook::server::connections::{Client, mark_complete};
use crate::webhook::server::limits::{
    BODY_TIMEOUT, LARGE_BODY_BYTES, MAX_BODY_BYTES, MAX_CONTAINERS, MAX_LARGE_BODY_BYTES,
    MAX_LARGE_READS, MAX_PAGES, MAX_VALUES, REQUEST_TIMEOUT,
};
use crate::webhook::server::pool::{Pool, PoolGuard};
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The part of a page that is handed over at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// The age of a page up to which it is sent again.
const MAX_PAGE_AGE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Requests {
    all: Arc<Pool>,
    /// The bytes of large bodies.
    large: Arc<Pool>,
    /// Large bodies that are read as JSON.
    large_reads: Semaphore,
    pages: Arc<Pool>,
    page: Arc<Mutex<Option<Bytes>>>,
    metrics: Arc<Metrics>,
}

/// Why a request was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs())]
    BodyTooSlow,
    #[error("the request took too long")]
    TooSlow,
    #[error("the body ended early")]
    Broken,
    #[error(
        "the body has more than {MAX_CONTAINERS} lists and objects, or more than {MAX_VALUES} values in them"
    )]
    TooIntricate,
    #[error("there are too many requests at once, and this one took the longest")]
    Evicted,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooIntricate => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow | Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Evicted => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The label of the metric.
    fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "large",
            Self::TooIntricate => "intricate",
            Self::BodyTooSlow | Self::TooSlow => "slow",
            Self::Broken => "broken",
            Self::Evicted => "displaced",
        }
    }
}

impl Requests {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Pool::new(max),
            large: Pool::new(MAX_LARGE_BODY_BYTES),
            large_reads: Semaphore::new(MAX_LARGE_READS),
            pages: Pool::new(MAX_PAGES),
            page: Arc::default(),
            metrics,
        }
    }

    /// Has `next` answer a request whose body is in one piece, or answers with the reason why not.
    pub(super) async fn admit(&self, request: Request, next: Next) -> Response {
        let client = Client::of(&request);
        let guard = self.all.enter(client, 1);
        let response = tokio::select! {
            response = timeout(REQUEST_TIMEOUT, self.judge(client, request, next)) =>
                response.unwrap_or(Err(Refusal::TooSlow)),
            () = guard.evicted() => Err(Refusal::Evicted),
        };
        response.unwrap_or_else(|refusal| {
            self.metrics.listeners.refused(refusal.reason());
            (refusal.status(), format!("{refusal}\n")).into_response()
        })
    }

    async fn judge(&self, client: u64, request: Request, next: Next) -> Result<Response, Refusal> {
        if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(Refusal::TooLarge);
        }
        let (head, body) = request.into_parts();
        let (body, guard) = timeout(BODY_TIMEOUT, whole(body, client, &self.large))
            .await
            .unwrap_or(Err(Refusal::BodyTooSlow))?;
        mark_complete(&head.extensions);
        if is_too_intricate(&body, MAX_CONTAINERS, MAX_VALUES) {
            return Err(Refusal::TooIntricate);
        }
        let judged = next.run(Request::from_parts(head, body.into()));
        match guard {
            None => Ok(judged.await),
            Some(guard) => tokio::select! {
                response = judged => Ok(response),
                () = guard.evicted() => Err(Refusal::Evicted),
            },
        }
    }

    /// Waits until a body of this size may be read as JSON. The holder must not await anything.
    pub(super) async fn permit_to_read(&self, size: usize) -> Option<SemaphorePermit<'_>> {
        if size <= LARGE_BODY_BYTES {
            return None;
        }
        self.large_reads.acquire().await.ok()
    }

    /// The page of metrics, shared by all readers: it takes time to make. Slow readers are evicted.
    pub(super) fn page(&self, client: u64) -> Response {
        let page = {
            let mut page = lock(&self.page);
            let make = || {
                let fresh = Bytes::from(self.metrics.page());
                self.forget_page_later();
                fresh
            };
            page.get_or_insert_with(make).clone()
        };
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let length = page.len().to_string();
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CONTENT_LENGTH, length.as_str()),
        ];
        (headers, in_chunks(page, self.pages.enter(client, 1))).into_response()
    }

    /// Frees the page, which has megabytes where there are many Pkis.
    fn forget_page_later(&self) {
        let page = self.page.clone();
        tokio::spawn(async move {
            tokio::time::sleep(MAX_PAGE_AGE).await;
            *lock(&page) = None;
        });
    }
}

fn in_chunks(page: Bytes, guard: PoolGuard) -> Body {
    let chunks = stream::try_unfold((page, guard), async |(mut page, guard)| {
        if guard.is_evicted() {
            return Err(io::Error::other("too many pages are being sent"));
        }
        let chunk = page.split_to(page.len().min(CHUNK_BYTES));
        Ok((!chunk.is_empty()).then_some((chunk, (page, guard))))
    });
    Body::from_stream(chunks)
}

/// A body in one piece, with its entry in the pool if it is large. The entry grows with the bytes
/// that come: announced ones evict nobody. (Chunks of single bytes would take forty times as much.)
async fn whole(
    body: Body,
    client: u64,
    pool: &Arc<Pool>,
) -> Result<(Vec<u8>, Option<PoolGuard>), Refusal> {
    let mut whole = Vec::new();
    let mut guard = None::<PoolGuard>;
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = match &guard {
            Some(guard) => tokio::select! {
                chunk = chunks.next() => chunk,
                () = guard.evicted() => return Err(Refusal::Evicted),
            },
            None => chunks.next().await,
        };
        let Some(chunk) = chunk else {
            return Ok((whole, guard));
        };
        let chunk = chunk.map_err(|_| Refusal::Broken)?;
        if chunk.len() > MAX_BODY_BYTES - whole.len() {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&chunk);
        match &guard {
            Some(guard) => guard.grow(chunk.len()),
            None if whole.len() > LARGE_BODY_BYTES => guard = Some(pool.enter(client, whole.len())),
            None => {}
        }
    }
}

/// Whether JSON exceeds these numbers of lists and objects, or of values in them. Empty ones count
/// as values only: they take no memory, and `managedFields` are full of them.
fn is_too_intricate(json: &[u8], max_containers: usize, max_values: usize) -> bool {
    let (mut containers, mut values) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    let mut is_opened = false;
    for byte in json.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        if std::mem::take(&mut is_opened) && matches!(byte, b'}' | b']') {
            containers -= 1;
        }
        match (in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                containers += 1;
                is_opened = true;
            }
            (false, b',') => values += 1,
            _ => {}
        }
    }
    containers > max_containers || values > max_values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_objects_and_values_are_counted_but_not_in_strings() {
        for (json, containers, values) in [
            (r#"{"a": [1, 2, 3], "b": {}}"#, 2, 3),
            (r#"[{}, [ ], {"a": {}}, "{", "}"]"#, 2, 4),
            (r#"{"a": "{[,", "b": "\"{,\\", "c": ["\\"]}"#, 2, 2),
            ("[[[", 3, 0),
            (",,", 0, 2),
            ("", 0, 0),
        ] {
            assert!(
                !is_too_intricate(json.as_bytes(), containers, values),
                "{json}"
            );
            if containers > 0 {
                assert!(
                    is_too_intricate(json.as_bytes(), containers - 1, values),
                    "{json}"
                );
            }
            if values > 0 {
                assert!(
                    is_too_intricate(json.as_bytes(), containers, values - 1),
                    "{json}"
                );
            }
        }
    }

    async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
        whole(body, 1, &Pool::new(MAX_LARGE_BODY_BYTES))
            .await
            .map(|(whole, _)| whole)
    }

    fn chunks(size: usize, count: usize) -> Body {
        let chunk = move |_| Ok::<_, io::Error>(Bytes::from(vec![b'x'; size]));
        Body::from_stream(stream::iter((0..count).map(chunk)))
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_and_not_beyond_the_limit() {
        assert_eq!(read(Body::empty()).await, Ok(vec![]));
        assert_eq!(read(chunks(1, 3)).await, Ok(b"xxx".into()));
        let all = read(chunks(MAX_BODY_BYTES / 7, 7)).await;
        assert_eq!(all.map(|it| it.len()), Ok(MAX_BODY_BYTES));
        assert_eq!(
            read(chunks(MAX_BODY_BYTES / 7, 8)).await,
            Err(Refusal::TooLarge)
        );
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("gone"))]);
        assert_eq!(read(Body::from_stream(broken)).await, Err(Refusal::Broken));
    }

    #[tokio::test]
    async fn a_large_body_takes_up_its_size_so_far_and_is_evicted_for_others() {
        let pool = Pool::new(4 * LARGE_BODY_BYTES);
        let (_, guard) = whole(chunks(LARGE_BODY_BYTES, 1), 1, &pool)
            .await
            .expect("it comes");
        assert!(guard.is_none(), "it is a small one");
        let stuck = chunks(LARGE_BODY_BYTES, 2)
            .into_data_stream()
            .chain(stream::pending());
        let stuck = whole(Body::from_stream(stuck), 2, &pool);
        let others = async {
            // With the two of the first body, four large bodies come, and then five.
            let (_, second) = whole(chunks(LARGE_BODY_BYTES, 2), 3, &pool)
                .await
                .expect("it comes");
            second.expect("it is a large one").grow(1);
        };
        let (stuck, ()) = tokio::join!(stuck, others);
        assert_eq!(stuck.map(drop), Err(Refusal::Evicted));
    }

    #[tokio::test]
    async fn a_page_that_is_read_slowly_ends_when_others_need_its_place() {
        let pages = Pool::new(1);
        let page = Bytes::from(vec![b'x'; 3 * CHUNK_BYTES + 1]);
        let mut slow = in_chunks(page.clone(), pages.enter(1, 1)).into_data_stream();
        assert!(slow.next().await.is_some_and(|chunk| chunk.is_ok()));
        let quick = in_chunks(page.clone(), pages.enter(2, 1));
        assert_eq!(read(quick).await.map(Bytes::from), Ok(page));
        assert!(slow.next().await.is_some_and(|chunk| chunk.is_err()));
    }
}
