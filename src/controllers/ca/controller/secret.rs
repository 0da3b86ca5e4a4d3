//! The writes to the Secret of the CA: a successor, and each CA in its place.

use super::super::placement;
use super::super::rotation::{self, RotationRequest};
use super::CaController;
use crate::events;
use crate::k8s::patch;
use crate::model::ca_state::CaState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::Value;

impl CaController {
    /// Writes what [`change`](Self::change) decides, or answers a request that has to wait. Returns
    /// whether the Secret was written.
    pub(super) async fn update(
        &self,
        secret: &Secret,
        state: &CaState,
        can_sign: bool,
        now: Timestamp,
    ) -> Result<bool, kube::Error> {
        // A Secret with an alarm is left for people to look into, unless its CA has only expired.
        let may_write = can_sign || state.current.not_after() < now;
        let may_write = may_write && !self.settings.is_brought;
        let change = may_write.then(|| self.change(secret, state, now)).flatten();
        let Some(mut change) = change else {
            self.answer_request(secret, state, now);
            return Ok(false);
        };
        patch::bind(&mut change, secret);
        let (name, change) = (secret.name_any(), Patch::Merge(&change));
        self.secrets.patch(&name, &patch::patch(), &change).await?;
        Ok(true)
    }

    /// The change that puts each CA in its place, or else adds a successor that is due.
    fn change(&self, secret: &Secret, state: &CaState, now: Timestamp) -> Option<Value> {
        let (times, retention) = (&self.settings.times, self.settings.retention);
        let outdated = rotation::outdated(state, retention);
        if let Some(change) = placement::moved(secret, state, outdated, now) {
            tracing::info!("moved the CAs within their Secret");
            return Some(change);
        }
        let request = placement::request(secret);
        let is_forced = request == Some(RotationRequest::Force);
        let is_due = rotation::is_due(state, request, times, now);
        if !is_due || (placement::has_next(secret) && !is_forced) {
            return None;
        }
        let successor = self.generate(now);
        let fingerprint = successor.ca().fingerprint();
        tracing::info!(fingerprint, is_forced, "created the next CA");
        Some(placement::with_next(&successor, request))
    }

    /// Publishes why a request for another CA has to wait.
    fn answer_request(&self, secret: &Secret, state: &CaState, now: Timestamp) {
        let Some(request) = placement::request(secret) else {
            return;
        };
        let obstacle = match (self.settings.is_brought, &state.next) {
            // A brought one that is being published is what was asked for.
            (true, Some(_)) => None,
            (true, None) => Some(
                "the CA is your own: add the next one to the Secret as next.crt and next.key, and remove the annotation when \
                 it signs"
                    .to_owned(),
            ),
            (false, _) => rotation::obstacle(state, Some(request), &self.settings.times, now),
        };
        if let Some(obstacle) = obstacle {
            tracing::info!(obstacle, "a requested rotation of the CA has to wait");
            let notice = events::about_rotation_request(&self.settings.secret, &obstacle);
            self.publisher.offer(notice);
        }
    }
}
