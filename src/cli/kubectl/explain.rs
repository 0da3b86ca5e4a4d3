//! `kubectl pki explain`: one page on why a Pki has its certificate, or has none, and what to do
//! about it. [`page`] is a pure function of the [`Facts`], some of which the reader may not read.

use super::{inspect, status, values, words};
use crate::api::annotations::ADOPT;
use crate::api::{Delivery, Pki, PkiStatus, READY};
use crate::guide;
use crate::k8s::secret::is_owned_by;
use crate::policy::{Approved, Violation};
use crate::store::cached_pod::SecretUser;
use crate::util::text::{line, printable, sentence};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub mod ask;
mod published_event;

pub use published_event::PublishedEvent;

const MAX_LISTED: usize = 20;
/// The number of pods that are named in a command.
const MAX_NAMED_PODS: usize = 3;

/// A fact, or a sentence on why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<T> {
    /// The fact.
    Known(T),
    /// The sentence.
    Unknown(String),
}

/// The facts of a page.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The namespace of the Pki.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Pki, if there is one.
    pub pki: Option<Pki>,
    /// If there is no such Pki, one with a similar name.
    pub near: Option<String>,
    /// The verdict of the policies: the approval, or the violations.
    pub judgement: Part<Result<Box<Approved>, Vec<Violation>>>,
    /// The Secret, if there is one.
    pub secret: Part<Option<Secret>>,
    /// The pods that use it.
    pub users: Part<Vec<SecretUser>>,
    /// The Events about it, the latest first.
    pub events: Part<Vec<PublishedEvent>>,
}

impl Facts {
    fn secret_name(&self) -> &str {
        let pki = self.pki.as_ref();
        pki.map_or(&self.name, |pki| pki.secret_name())
    }

    fn is_for_pods(&self) -> bool {
        let pki = self.pki.as_ref();
        pki.is_some_and(|pki| pki.delivery() == Delivery::Pod)
    }

    fn status(&self) -> Option<&PkiStatus> {
        self.pki.as_ref()?.status.as_ref()
    }

    fn ready(&self) -> Option<&Condition> {
        self.pki.as_ref()?.condition(READY)
    }

    /// The reason why the Pki has no certificate, if it is known; `PkiReady` if it has one.
    fn reason(&self) -> Option<String> {
        let judged = match &self.judgement {
            Part::Known(Err(violations)) => violations.first().map(Violation::reason),
            _ => None,
        };
        let condition = self.ready().map(|ready| ready.reason.as_str());
        let event = match (&self.pki, &self.events) {
            (None, Part::Known(events)) => events.first().map(|event| event.reason.as_str()),
            _ => None,
        };
        let fault = condition.filter(|reason| *reason != "PkiReady");
        let reason = fault.or(judged).or(condition).or(event);
        reason.map(str::to_owned)
    }
}

/// The page.
pub fn page(facts: &Facts, now: Timestamp) -> String {
    let mut page = Page::default();
    head(&mut page, facts, now);
    advice(&mut page, facts);
    if facts.pki.is_some() {
        policies(&mut page, facts);
    }
    secret(&mut page, facts, now);
    pods(&mut page, facts, now);
    events(&mut page, facts, now);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.0.extend([gap, text, "\n"]);
    }

    fn line(&mut self, text: &str) {
        self.0.extend(["  ", text, "\n"]);
    }

    /// The first items of a list, and the number of the others.
    fn list<T>(&mut self, items: &[T], show: impl Fn(&T) -> String) {
        for item in items.iter().take(MAX_LISTED) {
            self.line(&show(item));
        }
        if let Some(more) = items.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
            self.line(&format!("and {more} more"));
        }
    }
}

fn head(page: &mut Page, facts: &Facts, now: Timestamp) {
    let place = printable(&format!("{}/{}", facts.namespace, facts.name));
    let Some(pki) = &facts.pki else {
        page.heading(&format!("There is no Pki {place}"));
        page.line(&match &facts.near {
            Some(near) => format!("Did you mean {}?", printable(near)),
            None => "It was never applied, was denied, or was deleted: run `kubectl apply` and read the message."
                .to_owned(),
        });
        return;
    };
    let service = printable(&pki.spec.service_name);
    page.heading(&format!("Pki {place} for the service {service}"));
    match facts.ready() {
        None => page.line("The operator has not processed it yet. If this lasts, the operator does not run: ask the platform team."),
        Some(ready) => {
            let is_ready = ready.status == "True";
            let (state, since) = (if is_ready { "Ready" } else { "Not ready" }, words::age(ready.last_transition_time.0, now));
            page.line(&format!("{state} for {since}: {}", printable(&ready.reason)));
            page.line(&sentence(&ready.message));
            if ready.observed_generation < pki.metadata.generation {
                page.line("It was edited since: the operator has not processed the edit yet.");
            }
        }
    }
    if pki.metadata.deletion_timestamp.is_some() {
        page.line("It is being deleted.");
    }
}

fn advice(page: &mut Page, facts: &Facts) {
    let reason = facts.reason().filter(|reason| reason != "PkiReady");
    let Some(reason) = reason else { return };
    if let Some(advice) = guide::advice(&reason) {
        page.heading(&format!("Why ({})", printable(&reason)));
        page.line(&advice.cause);
        page.heading("What to do");
        page.line(&advice.remedy);
    }
}

fn policies(page: &mut Page, facts: &Facts) {
    page.heading("Policies");
    match &facts.judgement {
        Part::Unknown(sentence) => {
            page.line(sentence);
            recorded(page, facts);
        }
        Part::Known(Ok(approved)) => {
            let policy = printable(&approved.policy);
            page.line(&format!("PkiPolicy {policy} permits it"));
            page.heading("Effective values, and who sets them");
            page.list(&values::lines(approved), Clone::clone);
        }
        Part::Known(Err(violations)) => {
            page.line("no policy permits it as it is:");
            page.list(violations, |violation| {
                format!("  {}: {}", violation.field(), line(&violation.to_string()))
            });
        }
    }
}

/// The values of the certificate as the status has them, for those who may not read the policies.
fn recorded(page: &mut Page, facts: &Facts) {
    let Some(status) = facts.status() else { return };
    let Some(policy) = &status.policy else { return };
    let policy = printable(policy);
    page.line(&format!(
        "PkiPolicy {policy} permitted the certificate that is in use"
    ));
    let defaults = status.defaults.as_ref();
    let values = defaults.map(values::recorded).unwrap_or_default();
    if !values.is_empty() {
        page.heading("Values of that certificate that the Pki leaves out");
        page.list(&values, Clone::clone);
    }
}

fn secret(page: &mut Page, facts: &Facts, now: Timestamp) {
    if facts.is_for_pods() {
        page.heading("Secret");
        page.line(
            "none, because of delivery: Pod: the kubelet asks for a certificate for each pod",
        );
        return formers(page, facts, now);
    }
    page.heading(&format!("Secret {}", printable(facts.secret_name())));
    match &facts.secret {
        Part::Unknown(sentence) => {
            page.line(sentence);
            from_status(page, facts, now);
        }
        Part::Known(None) => page.line("does not exist"),
        Part::Known(Some(secret)) => {
            let type_ = printable(secret.type_.as_deref().unwrap_or("Opaque"));
            let owner = owner(secret, facts.pki.as_ref());
            page.line(&format!("of type {type_}, {owner}"));
            for line in inspect::brief(secret, now) {
                page.line(&line);
            }
        }
    }
    let at = |time: &Time| format!("{} ({})", time.0, words::until(time.0, now));
    let status = facts.status();
    if let Some(time) = status.and_then(|status| status.renewal_time.as_ref()) {
        if facts.pki.as_ref().is_some_and(status::is_refused) {
            page.line("renewal: none while the Pki is refused");
        } else {
            page.line(&format!("renewal: {}", at(time)));
        }
    }
    formers(page, facts, now);
    let request = status.and_then(|status| status.renewal_request.as_ref());
    if let Some(message) = request.and_then(|request| request.message.as_deref()) {
        page.line(&format!("renewal on request: {}", line(message)));
    }
    if let Some(time) = status.and_then(|status| status.next_attempt_time.as_ref()) {
        page.line(&format!("next attempt: {}", at(time)));
    }
}

/// The Secrets that were written before and may be there still.
fn formers(page: &mut Page, facts: &Facts, now: Timestamp) {
    let formers = facts.status().into_iter().flat_map(|it| &it.former_secrets);
    let formers = formers.filter_map(|former| Some((former, former.not_after.as_ref()?.0)));
    let formers: Vec<_> = formers.filter(|(_, end)| *end > now).collect();
    page.list(&formers, |(former, end)| {
        format!(
            "written instead of Secret {}, which stays while pods use it, at the latest until {end}",
            printable(&former.name)
        )
    });
}

fn from_status(page: &mut Page, facts: &Facts, now: Timestamp) {
    let Some(status) = facts.status() else { return };
    match (&status.serial_number, &status.not_after) {
        (Some(serial), Some(end)) => page.line(&format!(
            "according to the status, it holds the certificate {}, valid until {} ({} left)",
            printable(serial),
            end.0,
            words::until(end.0, now)
        )),
        _ => page.line("according to the status, it holds no certificate"),
    }
}

fn owner(secret: &Secret, pki: Option<&Pki>) -> String {
    if pki.is_some_and(|pki| is_owned_by(secret, pki)) {
        return "belongs to this Pki".to_owned();
    }
    let references = secret.metadata.owner_references.iter().flatten();
    let mut controllers = references.filter(|reference| reference.controller == Some(true));
    if let Some(owner) = controllers.next() {
        let (kind, name) = (printable(&owner.kind), printable(&owner.name));
        return format!("belongs to {kind} {name}");
    }
    let annotations = secret.metadata.annotations.as_ref();
    let offered_to = annotations.and_then(|all| all.get(ADOPT));
    let offered = offered_to.map_or_else(String::new, |name| {
        format!(", and {ADOPT} names \"{}\"", printable(name))
    });
    format!("does not belong to this Pki: it has no owner{offered}")
}

fn pods(page: &mut Page, facts: &Facts, now: Timestamp) {
    page.heading("Pods that use it");
    let is_there = facts.is_for_pods() || matches!(&facts.secret, Part::Known(Some(_)));
    match &facts.users {
        Part::Unknown(sentence) => page.line(sentence),
        Part::Known(users) if users.is_empty() => page.line("none"),
        Part::Known(users) => {
            page.list(users, |user| pod(user, facts.secret_name(), is_there, now));
            page.line(&describe(&facts.namespace, users));
        }
    }
}

fn pod(user: &SecretUser, secret: &str, is_there: bool, now: Timestamp) -> String {
    let state = match user.started {
        _ if user.waits_for(secret) && !is_there => {
            "has not started: it waits for the Secret".to_owned()
        }
        _ if user.is_pending && user.certified.is_some() => {
            "has not started: it waits for its certificate".to_owned()
        }
        _ if user.is_pending => "has not started".to_owned(),
        Some(started) => format!("has run for {}", words::age(started, now)),
        None => "runs".to_owned(),
    };
    let in_environment = user.use_of(secret).is_some_and(|it| it.in_environment);
    let note = if in_environment {
        "; has it in its environment, so it sees a renewed one only after a restart"
    } else {
        ""
    };
    format!("{} {state}{note}", printable(&user.key.name))
}

/// The command that shows all Events of these pods: by default kubectl shows those of one pod only.
fn describe(namespace: &str, users: &[SecretUser]) -> String {
    let names = users.iter().take(MAX_NAMED_PODS);
    let names: Vec<_> = names.map(|user| printable(&user.key.name)).collect();
    format!(
        "all their Events: kubectl describe pod {} --show-events -n {}",
        names.join(" "),
        printable(namespace)
    )
}

fn events(page: &mut Page, facts: &Facts, now: Timestamp) {
    page.heading("Events of the operator");
    match &facts.events {
        Part::Unknown(sentence) => page.line(sentence),
        Part::Known(events) if events.is_empty() => {
            page.line("none (Kubernetes keeps Events for an hour by default)");
        }
        Part::Known(events) => page.list(events, |event| event.line(now)),
    }
}

#[cfg(test)]
mod tests;
