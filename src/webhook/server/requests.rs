//! The requests to the webhook: how many there may be, how large each may be, and how long it may
//! take.

use crate::observability::metrics::Metrics;
use crate::util::sync::lock;
use crate::webhook::server::connections::{self, Client};
use crate::webhook::server::limits::{
    BODY_TIMEOUT, LARGE_AT_ONCE, LARGE_BODIES, LARGE_BODY, LARGEST_BODY, MOST_LISTS_AND_OBJECTS,
    MOST_VALUES, PAGES_AT_ONCE, REQUEST_TIMEOUT,
};
use crate::webhook::server::room::{Place, Room};
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

/// How much of a page is handed over at once.
const CHUNK: usize = 16 * 1024;
/// How old a page may be, so that all who ask at the same time are sent the same.
const PAGE_AGE: Duration = Duration::from_millis(100);

/// Room for requests.
#[derive(Debug)]
pub(super) struct Requests {
    all: Arc<Room>,
    /// For the bytes of large ones.
    large: Arc<Room>,
    /// For judging large ones.
    turns: Semaphore,
    pages: Arc<Room>,
    page: Arc<Mutex<Option<Bytes>>>,
    metrics: Arc<Metrics>,
}

/// Why a request was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the body is larger than {LARGEST_BODY} bytes")]
    TooLarge,
    #[error("the body did not come within {} seconds", BODY_TIMEOUT.as_secs())]
    BodyTooSlow,
    #[error("the request took too long")]
    TooSlow,
    #[error("the body ended early")]
    Broken,
    #[error(
        "the body has more than {MOST_LISTS_AND_OBJECTS} lists and objects, or more than {MOST_VALUES} values in them"
    )]
    TooIntricate,
    #[error("there are too many requests at once, and this one took the longest")]
    Displaced,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooIntricate => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow | Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Displaced => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// As the metric has it.
    fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "large",
            Self::TooIntricate => "intricate",
            Self::BodyTooSlow | Self::TooSlow => "slow",
            Self::Broken => "broken",
            Self::Displaced => "displaced",
        }
    }
}

impl Requests {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Room::new(most),
            large: Room::new(LARGE_BODIES),
            turns: Semaphore::new(LARGE_AT_ONCE),
            pages: Room::new(PAGES_AT_ONCE),
            page: Arc::default(),
            metrics,
        }
    }

    /// Has a request judged by `next`, its body in one piece, or says why not.
    pub(super) async fn admit(&self, request: Request, next: Next) -> Response {
        let client = Client::of(&request);
        let place = self.all.enter(client, 1);
        let response = tokio::select! {
            response = timeout(REQUEST_TIMEOUT, self.judge(client, request, next)) =>
                response.unwrap_or(Err(Refusal::TooSlow)),
            () = place.lost() => Err(Refusal::Displaced),
        };
        response.unwrap_or_else(|refusal| {
            self.metrics.listeners.refused(refusal.reason());
            (refusal.status(), format!("{refusal}\n")).into_response()
        })
    }

    async fn judge(&self, client: u64, request: Request, next: Next) -> Result<Response, Refusal> {
        if request.body().size_hint().lower() > LARGEST_BODY as u64 {
            return Err(Refusal::TooLarge);
        }
        let (head, body) = request.into_parts();
        let (body, place) = timeout(BODY_TIMEOUT, whole(body, client, &self.large))
            .await
            .unwrap_or(Err(Refusal::BodyTooSlow))?;
        connections::came_in_full(&head.extensions);
        if is_too_intricate(&body, MOST_LISTS_AND_OBJECTS, MOST_VALUES) {
            return Err(Refusal::TooIntricate);
        }
        let judged = next.run(Request::from_parts(head, body.into()));
        match place {
            None => Ok(judged.await),
            Some(place) => tokio::select! {
                response = judged => Ok(response),
                () = place.lost() => Err(Refusal::Displaced),
            },
        }
    }

    /// Waits until a body of this size may be read as JSON. Nobody may wait for anything while
    /// holding the turn.
    pub(super) async fn turn(&self, size: usize) -> Option<SemaphorePermit<'_>> {
        if size > LARGE_BODY {
            self.turns.acquire().await.ok()
        } else {
            None
        }
    }

    /// The page of metrics, which takes some time where there are many Pkis. Who reads it slowly
    /// makes way for who comes, and its memory is shared.
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

    /// Of many Pkis a page is several megabytes.
    fn forget_page_later(&self) {
        let page = self.page.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PAGE_AGE).await;
            *lock(&page) = None;
        });
    }
}

fn in_chunks(page: Bytes, place: Place) -> Body {
    let chunks = stream::try_unfold((page, place), async |(mut page, place)| {
        if place.is_lost() {
            return Err(io::Error::other("too many pages are being sent"));
        }
        let chunk = page.split_to(page.len().min(CHUNK));
        Ok((!chunk.is_empty()).then_some((chunk, (page, place))))
    });
    Body::from_stream(chunks)
}

/// A body in one piece, and if it is a large one its place in the room for these, which it takes up
/// as it comes: what is only announced displaces nobody. (Kept in the chunks in which it comes, one
/// of single bytes takes up forty times its size.)
async fn whole(
    body: Body,
    client: u64,
    room: &Arc<Room>,
) -> Result<(Vec<u8>, Option<Place>), Refusal> {
    let mut whole = Vec::new();
    let mut place = None::<Place>;
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = match &place {
            Some(place) => tokio::select! {
                chunk = chunks.next() => chunk,
                () = place.lost() => return Err(Refusal::Displaced),
            },
            None => chunks.next().await,
        };
        let Some(chunk) = chunk else {
            return Ok((whole, place));
        };
        let chunk = chunk.map_err(|_| Refusal::Broken)?;
        if chunk.len() > LARGEST_BODY - whole.len() {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&chunk);
        match &place {
            Some(place) => place.grow(chunk.len()),
            None if whole.len() > LARGE_BODY => place = Some(room.enter(client, whole.len())),
            None => {}
        }
    }
}

/// Whether JSON has more lists and objects, or more values in them, than that. Empty ones take up
/// no memory of their own, and `managedFields` have one for each label and annotation: they count
/// as values only.
fn is_too_intricate(json: &[u8], most_containers: usize, most_values: usize) -> bool {
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
    containers > most_containers || values > most_values
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
        whole(body, 1, &Room::new(LARGE_BODIES))
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
        let all = read(chunks(LARGEST_BODY / 7, 7)).await;
        assert_eq!(all.map(|it| it.len()), Ok(LARGEST_BODY));
        assert_eq!(
            read(chunks(LARGEST_BODY / 7, 8)).await,
            Err(Refusal::TooLarge)
        );
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("gone"))]);
        assert_eq!(read(Body::from_stream(broken)).await, Err(Refusal::Broken));
    }

    #[tokio::test]
    async fn a_large_body_takes_up_what_has_come_of_it_and_makes_way_for_others() {
        let room = Room::new(4 * LARGE_BODY);
        let (_, place) = whole(chunks(LARGE_BODY, 1), 1, &room)
            .await
            .expect("it comes");
        assert!(place.is_none(), "it is a small one");
        let stuck = chunks(LARGE_BODY, 2)
            .into_data_stream()
            .chain(stream::pending());
        let stuck = whole(Body::from_stream(stuck), 2, &room);
        let others = async {
            // That is four times as much with the two of the first one, and then five.
            let (_, second) = whole(chunks(LARGE_BODY, 2), 3, &room)
                .await
                .expect("it comes");
            second.expect("it is a large one").grow(1);
        };
        let (stuck, ()) = tokio::join!(stuck, others);
        assert_eq!(stuck.map(drop), Err(Refusal::Displaced));
    }

    #[tokio::test]
    async fn a_page_that_is_read_slowly_ends_when_others_need_its_place() {
        let pages = Room::new(1);
        let page = Bytes::from(vec![b'x'; 3 * CHUNK + 1]);
        let mut slow = in_chunks(page.clone(), pages.enter(1, 1)).into_data_stream();
        assert!(slow.next().await.is_some_and(|chunk| chunk.is_ok()));
        let quick = in_chunks(page.clone(), pages.enter(2, 1));
        assert_eq!(read(quick).await.map(Bytes::from), Ok(page));
        assert!(slow.next().await.is_some_and(|chunk| chunk.is_err()));
    }
}
