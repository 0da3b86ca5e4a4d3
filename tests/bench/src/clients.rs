//! Many requests at a time, and how long each takes.

use futures::{StreamExt as _, TryStreamExt as _};
use std::time::{Duration, Instant};

/// How many clients ask at once, where nothing else is said.
pub(crate) const CLIENTS: usize = 32;

/// How long requests took, each by itself and all together.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) all: Duration,
    each: Vec<Duration>,
}

impl Times {
    pub(crate) fn new(all: Duration, mut each: Vec<Duration>) -> Self {
        each.sort_unstable();
        Self { all, each }
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.each.len()).unwrap_or(u32::MAX)) / self.all.as_secs_f64()
    }

    /// The time within which this share of them, in hundredths, was over, in milliseconds.
    pub(crate) fn within(&self, share: usize) -> f64 {
        let last = self.each.len().saturating_sub(1);
        let at = self.each.get(last * share / 100);
        at.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

/// Sends requests number 0 to `count`, [`CLIENTS`] at a time.
pub(crate) async fn send<F, T>(count: usize, request: impl Fn(usize) -> F) -> kube::Result<Times>
where
    F: Future<Output = kube::Result<T>>,
{
    let begin = Instant::now();
    let requests = (0..count).map(|number| {
        let request = request(number);
        async move {
            let begin = Instant::now();
            request.await.map(|_| begin.elapsed())
        }
    });
    let requests = futures::stream::iter(requests).buffer_unordered(CLIENTS);
    let each = requests.try_collect().await?;
    Ok(Times::new(begin.elapsed(), each))
}
