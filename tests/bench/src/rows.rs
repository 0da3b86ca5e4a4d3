//! What is measured, in the order in which one follows from another.

use crate::report::Row;
use crate::stage::Stage;

mod admission;
mod creates;
mod flip;
mod issuance;
mod restart;
mod webhook;

/// Measures all rows whose names contain `only`; `found` gets each as it is there.
pub(crate) async fn measure(
    stage: &mut Stage,
    only: &str,
    mut found: impl FnMut(Row),
) -> anyhow::Result<()> {
    let mut found = |row: Row| {
        if row.name.contains(only) {
            found(row);
        }
    };
    let limit = creates::secrets(stage).await?;
    let bare = limit.rate;
    found(limit);
    found(creates::issuances(stage, bare).await?);
    stage.start_operator()?;
    for row in webhook::rows(stage)? {
        found(row);
    }
    for row in admission::rows(stage).await? {
        found(row);
    }
    for row in issuance::rows(stage, bare).await? {
        found(row);
    }
    for row in flip::rows(stage, bare).await? {
        found(row);
    }
    found(restart::row(stage).await?);
    stage.stop_operator()
}

#[expect(clippy::cast_precision_loss, reason = "neither has as many digits")]
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
