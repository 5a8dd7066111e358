//! The reconcile loop: observe → assess (validate, plan the sizes) → plan the step → build → apply → status. Steps are
//! data, so reading [`steps`] is reading the operator; only observe, apply and status see the cluster.

pub mod apply;
pub mod assess;
pub mod build;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]
mod campaign;
mod census;
pub mod observe;
pub mod own_writes;
pub mod page;
pub mod plan;
pub mod pods;
pub mod progress;
pub mod publish;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod simulation;
pub mod status;
pub mod usage;
pub mod validate;
pub mod watch;

pub use build::Settings;

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt, stream};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};

use self::apply::Writer;
use self::observe::Live;
use self::own_writes::OwnWrites;
use self::plan::Step;
use self::progress::Poller;
use self::publish::Publisher;
use self::usage::Meter;
use self::watch::{Guarded, Stores};
use crate::crd::KimiModel;
use crate::leader::{Election, Lost};
use crate::telemetry::Telemetry;

/// Events of one burst (a Job, its pod, its endpoints) become one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Models reconciled at once; each waits for the API server most of the time, and a new one should not wait for those.
const CONCURRENCY: u16 = 64;
/// Looked at again after this long even if nothing happened: a safety net, which writes nothing when all is well.
const RESYNC: Duration = Duration::from_mins(10);
/// First pause after an error; it doubles up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(5);
/// How often what no watch shows is read again: a ConfigMap that holds the quant, a volume that holds the weights.
const REREAD: Duration = Duration::from_secs(15);

/// The step that ended a reconcile early. Waiting is no error; it is a [`plan::Decision`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Observe(#[from] observe::Error),
    #[error(transparent)]
    Build(#[from] build::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Publish(#[from] publish::Error),
    #[error("a reconcile ended in a panic: {0}")]
    Panicked(#[source] JoinError),
}

impl Error {
    /// Label of the error metric.
    fn step(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Build(_) => "build",
            Self::Apply(_) => "apply",
            Self::Publish(_) => "status",
            Self::Panicked(_) => "panic",
        }
    }
}

/// Why the controller ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("a watch ended: {0}")]
    Watch(String),
    #[error("no longer the leader: {0}")]
    Lost(#[from] Lost),
}

/// What every reconcile shares.
#[derive(Debug)]
struct Context {
    client: DebugClient,
    publisher: Publisher,
    stores: Stores,
    settings: Settings,
    telemetry: Arc<Telemetry>,
    poller: Poller,
    meter: Meter,
    own_writes: OwnWrites,
    failures: Failures,
}

/// A client in a struct that derives `Debug`.
struct DebugClient(Client);

impl std::fmt::Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// Runs until SIGTERM or SIGINT; reconciles that have begun are finished. With an election, `client` is fenced by its
/// tenure, and nothing is reconciled before it is won.
///
/// # Errors
/// Signals cannot be listened for, the Lease was lost, or a watch task ended, which is a bug.
pub async fn run(
    client: Client,
    namespace: Option<String>,
    settings: Settings,
    telemetry: Arc<Telemetry>,
    mut election: Option<Election>,
) -> Result<(), Fatal> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Signals)?;
    let mut stop = Box::pin(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    })
    .shared();

    let (queue, mut changes) = mpsc::unbounded();
    let mut watches = JoinSet::new();
    tokio::select! {
        () = watch::wait_for_crd(&client, namespace.as_deref()) => {}
        () = stop.clone() => return Ok(()),
    }
    let stores = Stores::start(&client, namespace.as_deref(), &queue, &mut watches);
    // Before the first complete lists a missing object may only be unseen: making it again would be wrong.
    tokio::select! {
        () = stores.wait_until_ready() => {}
        () = stop.clone() => return Ok(()),
    }
    telemetry.set_ready();
    tracing::info!("watches are in sync");
    watches.spawn(census::keep(stores.clone(), Arc::clone(&telemetry)));

    if let Some(election) = &mut election {
        // A stand-by forgets what changes: the watches keep its outcome, and every model is looked at on taking over.
        let forget = changes.by_ref().chain(stream::pending());
        tokio::select! {
            () = election.campaign() => {}
            () = forget.for_each(|_| std::future::ready(())) => {}
            ended = watches.join_next() => return Err(watch_ended(ended)),
            () = stop.clone() => return Ok(()),
        }
        for model in stores.models.state() {
            // Fails only when the receiver is gone, and it is held here.
            let _ = queue.unbounded_send(ObjectRef::from_obj(model.as_ref()));
        }
    }
    telemetry.metrics().leads(true);

    let models = stores.models.clone();
    let context = Arc::new(Context {
        publisher: Publisher::new(client.clone(), telemetry.metrics().clone()),
        client: DebugClient(client),
        stores,
        settings,
        telemetry,
        poller: Poller::default(),
        meter: Meter::default(),
        own_writes: OwnWrites::default(),
        failures: Failures::default(),
    });
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(CONCURRENCY);
    let changes = changes.map(Ok::<_, Infallible>).take_until(stop.clone());
    let reconciles = applier(reconcile, on_error, context, models, changes, config)
        .for_each(|_| std::future::ready(()));
    tokio::select! {
        () = reconciles => {}
        ended = watches.join_next() => return Err(watch_ended(ended)),
        lost = hold(election.as_mut()) => return Err(Fatal::Lost(lost)),
    }
    (&mut stop).await;
    if let Some(election) = &mut election {
        election.release().await;
    }
    tracing::info!("stopped");
    Ok(())
}

fn watch_ended(ended: Option<Result<(), JoinError>>) -> Fatal {
    let error = ended.and_then(Result::err);
    Fatal::Watch(error.map_or_else(|| "without an error".to_owned(), |error| error.to_string()))
}

async fn hold(election: Option<&mut Election>) -> Lost {
    match election {
        Some(election) => election.hold().await,
        None => std::future::pending().await,
    }
}

/// One reconcile in a task of its own: a panic ends it, not the operator.
fn reconcile(
    model: Arc<Guarded>,
    context: Arc<Context>,
) -> futures::future::BoxFuture<'static, Result<Action, Error>> {
    async move {
        let start = Instant::now();
        let (key, telemetry) = (key(&model), Arc::clone(&context.telemetry));
        let work = {
            let context = Arc::clone(&context);
            async move { steps(&model, &context).await }
        };
        let result = tokio::spawn(work)
            .await
            .unwrap_or_else(|error| Err(Error::Panicked(error)));
        telemetry
            .metrics()
            .reconciled(result.as_ref().err().map(Error::step), start.elapsed());
        if result.is_ok() {
            context.failures.forget(&key);
        }
        result
    }
    .boxed()
}

/// The reconcile.
async fn steps(guarded: &Guarded, context: &Context) -> Result<Action, Error> {
    let Context {
        client: DebugClient(client),
        publisher,
        stores,
        settings,
        telemetry,
        poller,
        meter,
        own_writes,
        failures: _,
    } = context;
    let metrics = telemetry.metrics();
    let model: &KimiModel = match &guarded.0 {
        Ok(model) => model,
        Err(invalid) => {
            publisher.invalid(invalid).await?;
            return Ok(Action::await_change());
        }
    };
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let mut live = Live::of(model, stores);
    let shown = |kind: &str, object: &str| match kind {
        publish::KIND => model.resource_version(),
        _ => live.version(kind, object),
    };
    if let Some(wait) = own_writes.unseen((&namespace, &name), shown, Instant::now()) {
        return Ok(Action::requeue(wait));
    }

    let mut snapshot = observe::observe(client, model, &mut live, poller, metrics).await?;
    observe::measure(&mut snapshot, &live, meter).await;
    let assessment = assess::assess(settings, &snapshot)?;
    let decision = plan::plan(&assessment, &snapshot);
    tracing::debug!(%namespace, model = snapshot.model.name, step = ?decision.step, message = decision.message, "decided");
    let prepared = build::build(settings, &assessment, &decision, &snapshot)?;
    let applied = Writer {
        client,
        namespace: &namespace,
        model: &name,
        metrics,
        own_writes,
    }
    .write(prepared, &live)
    .await;
    if decision.step == Step::Deleting {
        return Ok(Action::await_change());
    }
    let status = status::status(status::Inputs {
        snapshot: &snapshot,
        assessment: &assessment,
        decision: &decision,
        applied: applied.as_ref(),
        previous: model.status.as_ref(),
    });
    let later = publisher.publish(model, status, own_writes).await?;
    applied?;
    let mut again = decision.requeue.unwrap_or(RESYNC);
    if let Some(wait) = later {
        again = again.min(wait);
    }
    if snapshot.quant_from.is_some() || live.given.is_some() {
        again = again.min(REREAD);
    }
    Ok(Action::requeue(again))
}

/// Back-off with jitter: models that fail together do not come back together.
fn on_error(model: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let key = key(&model);
    let pause = context.failures.next_pause(&key);
    tracing::warn!(model = %key, %error, retry_in = ?pause, "reconcile failed");
    Action::requeue(pause)
}

fn key(model: &Guarded) -> String {
    ObjectRef::from_obj(model).to_string()
}

/// How often each model has failed in a row.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: Mutex<HashMap<String, u32>>,
    jitter: RandomState,
}

impl Failures {
    fn forget(&self, key: &str) {
        self.in_a_row
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    fn next_pause(&self, key: &str) -> Duration {
        let mut in_a_row = self.in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_a_row.entry(key.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        let doubled = FIRST_RETRY.saturating_mul(1_u32.checked_shl(*count - 1).unwrap_or(u32::MAX));
        // Between three quarters and five quarters of the pause.
        let percent = 75 + self.jitter.hash_one((key, *count)) % 51;
        doubled.min(LONGEST_RETRY) * u32::try_from(percent).unwrap_or(100) / 100
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_and_end_at_the_longest() {
        let failures = Failures::default();
        let pauses: Vec<Duration> = (0..40)
            .map(|_| failures.next_pause("KimiModel llm/kimi"))
            .collect();
        for (index, pause) in pauses.iter().enumerate() {
            let nominal = FIRST_RETRY
                .saturating_mul(1 << index.min(20))
                .min(LONGEST_RETRY);
            assert!(
                *pause >= nominal * 3 / 4 && *pause <= nominal * 5 / 4,
                "{index}: {pause:?}"
            );
        }
        failures.forget("KimiModel llm/kimi");
        assert!(failures.next_pause("KimiModel llm/kimi") <= FIRST_RETRY * 5 / 4);
    }
}
