//! Waiting for a state of the cluster.

use std::thread;
use std::time::{Duration, Instant};

/// The time limit of [`eventually`]. An idle machine needs well under a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause after the first attempt. It doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Calls `check` until it returns a value.
///
/// Panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, &mut check)
}

/// Calls `check` until it returns a value, with another time limit.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    let mut pause = MIN_PAUSE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(pause);
        pause = MAX_PAUSE.min(pause * 2);
    }
}
