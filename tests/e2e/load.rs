//! Dry-run applies without a pause, each of which has one right answer, while something happens to
//! the operator.

use crate::node::PATIENCE;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pki_cluster::testing::{client, manifest};
use pki_operator::api::Pki;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How many ask at once.
const CLIENTS: usize = 4;

/// Requests that run until they are stopped.
pub(crate) struct Load {
    runtime: Runtime,
    clients: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

/// One request.
struct Answer {
    /// Until it was answered as it should be.
    took: Duration,
    /// What was wrong with the first answer; then it was sent again.
    failure: Option<String>,
}

impl Load {
    /// Starts asking the API server of this kubeconfig, as soon as there is an answer: `helm
    /// --wait` of the chart before ours returns before the way to its replicas is known.
    pub(crate) fn start(kubeconfig: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let pkis = runtime.block_on(async {
            let client = client(kubeconfig).await.unwrap();
            let pkis = Api::namespaced(client, "default");
            answered(&pkis, 0, true).await;
            pkis
        });
        let (is_over, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let ask = ask(
                pkis.clone(),
                number,
                Arc::clone(&is_over),
                Arc::clone(&answers),
            );
            clients.spawn_on(ask, runtime.handle());
        }
        Self {
            runtime,
            clients,
            is_over,
            answers,
        }
    }

    /// What happens while `event` does: prints how the requests fared; how many there were, and the
    /// failures.
    pub(crate) fn during(&self, what: &str, event: impl FnOnce()) -> (usize, Vec<String>) {
        self.answers.lock().unwrap().clear();
        let begin = Instant::now();
        event();
        let seconds = begin.elapsed().as_secs_f32();
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        assert!(
            answers.len() > CLIENTS,
            "{what}: {} requests are none",
            answers.len()
        );
        let mut took: Vec<_> = answers.iter().map(|answer| answer.took).collect();
        took.sort_unstable();
        let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        let failures: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| answer.failure)
            .collect();
        println!(
            "{what}: {} requests in {seconds:.1} s, {} failed; p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms",
            took.len(),
            failures.len(),
            at(50),
            at(99),
            at(100)
        );
        (took.len(), failures)
    }

    /// Ends it.
    pub(crate) fn stop(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.runtime
            .block_on(async { while self.clients.join_next().await.is_some() {} });
    }
}

/// Every second request is for a name that is allowed; the others have to be refused, in our words.
async fn ask(
    pkis: Api<Pki>,
    client: usize,
    is_over: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
) {
    let mut is_good = client.is_multiple_of(2);
    while !is_over.load(Ordering::Relaxed) {
        let answer = answered(&pkis, client, is_good).await;
        answers.lock().unwrap().push(answer);
        is_good = !is_good;
    }
}

/// Asks until the answer is what it should be.
async fn answered(pkis: &Api<Pki>, client: usize, is_good: bool) -> Answer {
    let begin = Instant::now();
    let mut failure = None;
    while let Err(error) = apply(pkis, client, is_good).await {
        failure.get_or_insert(error);
        if begin.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = begin.elapsed();
    Answer { took, failure }
}

/// Applies a Pki without storing it; an error if the answer is not what it should be.
async fn apply(pkis: &Api<Pki>, client: usize, is_good: bool) -> Result<(), String> {
    let name = format!("load-{client}");
    let service = if is_good { "app1" } else { "appp1" };
    let pki = manifest::pki(&name, &json!({"serviceName": service}));
    let dry_run = PatchParams::apply("load").force().dry_run();
    match (
        pkis.patch(&name, &dry_run, &Patch::Apply(pki)).await,
        is_good,
    ) {
        (Ok(_), true) => Ok(()),
        (Ok(_), false) => Err("the typo was admitted".into()),
        (Err(error), false) if error.to_string().contains("is not found in allowedNames") => Ok(()),
        (Err(error), _) => Err(error.to_string()),
    }
}
