//! Results of Events, for the metrics.

/// Result of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A new Event.
    Sent,
    /// One more in the series of an Event.
    Merged,
    /// Not sent, and nothing is lost by that: `told` already, `overtaken` by later news, or put off
    /// for the sake of the object's `budget`.
    Suppressed(&'static str),
    /// Lost: the queue is `full`, the API server answered that it is `forbidden`, `invalid` or
    /// otherwise `refused`, or was too busy until it was `stale` or the process ended (`closed`).
    Dropped(&'static str),
}
