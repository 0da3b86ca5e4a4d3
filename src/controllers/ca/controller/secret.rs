//! The writes to the Secret of the CA: a successor, and each CA in its place.

use super::super::{placement, rotation};
use super::{CaController, CaSettings};
use crate::events;
use crate::k8s::patch;
use crate::model::ca_state::CaState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use serde_json::Value;

impl CaController {
    /// Makes a successor when it is time, and puts each CA where it belongs.
    pub(super) async fn turn(
        &self,
        secrets: &Api<Secret>,
        secret: &Secret,
        state: &CaState,
        now: Timestamp,
    ) -> Result<bool, kube::Error> {
        let CaSettings {
            times, retention, ..
        } = &self.settings;
        let request = placement::request(secret);
        let outdated = rotation::outdated(state, *retention);
        let is_forced = request == Some(rotation::RotationRequest::Force);
        let change = if let Some(change) = placement::moved(secret, state, outdated, now) {
            tracing::info!("moved the CAs in their Secret");
            change
        } else if rotation::is_due(state, request, times, now)
            && (is_forced || !placement::has_next(secret))
        {
            let successor = self.generate(now);
            tracing::info!(
                fingerprint = successor.ca().fingerprint(),
                is_forced,
                "made the next CA"
            );
            placement::with_next(&successor, request)
        } else {
            self.answer(secret, state, now);
            return Ok(false);
        };
        self.patch(secrets, secret, change).await.map(|()| true)
    }

    /// Tells whoever asks for another CA that this has to wait, and for what.
    pub(super) fn answer(&self, secret: &Secret, state: &CaState, now: Timestamp) {
        let Some(request) = placement::request(secret) else {
            return;
        };
        let is_brought = self.settings.is_brought;
        let obstacle = match &state.next {
            // A brought one that is being made known is what was asked for.
            Some(_) if is_brought => return,
            None if is_brought => Some(
                "the CA is brought, so add the next one to the Secret as next.crt and next.key, and take the annotation away \
                 when it signs"
                    .to_owned(),
            ),
            _ => rotation::obstacle(state, Some(request), &self.settings.times, now),
        };
        if let Some(obstacle) = obstacle {
            tracing::info!(obstacle, "another CA was asked for, which has to wait");
            let notice = events::about_rotation_request(&self.settings.secret, &obstacle);
            self.publisher.offer(notice);
        }
    }

    async fn patch(
        &self,
        secrets: &Api<Secret>,
        secret: &Secret,
        mut change: Value,
    ) -> Result<(), kube::Error> {
        patch::bind(&mut change, secret);
        let patch = Patch::Merge(&change);
        secrets
            .patch(&secret.name_any(), &patch::patch(), &patch)
            .await
            .map(drop)
    }
}
