//! Loads a model, tests it and serves it until a signal ends the process: what `kimi serve` and
//! `kimi run` have in common. It must not know where the files came from.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, thread, time::Duration};

use engine::{Engine, Handle, Options, Progress};
use server::{App, Config};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::job::JobError;

/// What to serve, and where.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) options: Options,
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    /// Probes; none without an address.
    pub(crate) health: Option<SocketAddr>,
    pub(crate) drain_timeout: Duration,
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Load(#[from] engine::Error),
    #[error("{0}")]
    SelfTest(#[from] engine::SelfTestError),
    #[error("cannot listen on {address}: {source}; is another server running?")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error("the loading thread ended without a result; see the log above")]
    Lost,
}

impl Failure {
    /// One CamelCase word for the operator's conditions.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Load(error) => error.reason(),
            Self::SelfTest(_) => "SelfTestFailed",
            Self::Listen { .. } => "AddressInUse",
            Self::Start(_) | Self::Lost => "LoadFailed",
        }
    }
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        let reason = failure.reason();
        let permanent = matches!(
            reason,
            "NotGguf"
                | "MissingShard"
                | "WrongArchitecture"
                | "UnsupportedTensorType"
                | "ContextTooLong"
                | "SelfTestFailed"
        );
        Self {
            reason: reason.to_owned(),
            message: failure.to_string(),
            permanent,
        }
    }
}

/// Serves until a signal was handled.
///
/// # Errors
/// Anything that keeps the model from being served.
pub(crate) fn serve(serving: Serving) -> Result<ExitCode, Failure> {
    let progress = Progress::new();
    let app = App::new(serving.config, Arc::clone(&progress));
    // Probes come first: a load may take 20 minutes, and somebody asks all the while.
    if let Some(address) = serving.health {
        let bound = server::health::spawn(Arc::clone(&app), address)
            .map_err(|source| Failure::Listen { address, source })?;
        tracing::info!(address = %bound, "probes: /livez, /readyz, /metrics");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(
        app,
        progress,
        serving.options,
        serving.address,
        serving.drain_timeout,
    ));
    // A load under way cannot be interrupted; the process ends without waiting for it.
    runtime.shutdown_background();
    outcome
}

async fn run(
    app: Arc<App>,
    progress: Arc<Progress>,
    options: Options,
    address: SocketAddr,
    drain_timeout: Duration,
) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Failure::Listen { address, source })?;
    tracing::info!(%address, "listening");
    let server = tokio::spawn(server::conn::serve(
        listener,
        server::router(Arc::clone(&app)),
        Arc::clone(&app),
        drain_timeout,
    ));

    let loading = load(options, progress)?;
    let engine = tokio::select! {
        loaded = loading => {
            let (engine, handle) = loaded.map_err(|_| Failure::Lost)??;
            app.ready(handle);
            tracing::info!(%address, model = engine.info().name, quant = engine.info().quant, "ready");
            engine
        }
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.drain();
    let code = tokio::select! {
        drained = server => match drained {
            Ok(drained) if drained.cut == 0 => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                tracing::error!(%error, "the server ended badly");
                ExitCode::FAILURE
            }
        },
        // Whoever presses Ctrl-C again does not want to wait.
        _ = interrupt.recv() => ExitCode::from(INTERRUPTED),
    };
    drop(engine);
    Ok(code)
}

/// The shell's code for a process ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

type Loaded = Result<(Engine, Handle), Failure>;

/// Loads and tests on a thread of its own, logging how far it is.
fn load(options: Options, progress: Arc<Progress>) -> std::io::Result<oneshot::Receiver<Loaded>> {
    let (sender, receiver) = oneshot::channel();
    let reporter = Arc::clone(&progress);
    let watch = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(5));
        every.tick().await;
        loop {
            every.tick().await;
            let (loaded, total) = (reporter.bytes_loaded(), reporter.bytes_total());
            if total > 0 && loaded < total {
                tracing::info!(loaded, total, percent = loaded * 100 / total, "loading");
            }
        }
    });
    thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let loaded = load_and_test(options, progress);
            watch.abort();
            // The receiver is gone when a signal came first.
            _ = sender.send(loaded);
        })?;
    Ok(receiver)
}

fn load_and_test(options: Options, progress: Arc<Progress>) -> Loaded {
    let (engine, handle) = Engine::start(options, progress)?;
    // The engine logs what it found.
    engine.self_test()?;
    Ok((engine, handle))
}
