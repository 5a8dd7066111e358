//! `kimi fetch`: one artifact from a hub onto a volume, resumable and verified, with progress as bars on a terminal, as
//! log lines elsewhere and as JSON at `GET /progress`. The downloading itself is the fetch crate's.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::Json;
use axum::routing::get;
use fetch::{Manifest, Options, Progress, State};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::hub_source::HubSource;
use crate::job::{self, JobError};

/// Between two log lines where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Fetch the shards of a quant onto a volume, resuming what an earlier run left.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    pub(crate) source: HubSource,
    /// Root of the volume.
    #[arg(long, value_name = "DIR")]
    pub(crate) dest: PathBuf,
    /// Digest of the shard list that the source must have.
    #[arg(long, value_name = "HEX")]
    pub(crate) digest: Option<String>,
    /// Hash files that were verified before as well, and fetch again what is wrong.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Parallel connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,
    /// Address that serves GET /progress.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to write the error, if there is one, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Fetches; exit codes as for every Job command.
pub(crate) fn run(args: &FetchArgs) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = JobError::transient("IoError", format!("starting threads: {error}"));
            return job::fail(&error, args.output.as_deref());
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = fetch(args) => outcome,
            () = job::asked_to_end() => Err(JobError::transient(
                "Interrupted",
                "asked to end; the next run goes on from the pieces that are on the volume",
            )),
        }
    });
    // Work on blocking threads is safe to leave: the ledger speaks only of what is on the disk.
    runtime.shutdown_background();
    match outcome {
        Ok(manifest) => {
            tracing::info!(
                files = manifest.files.len(),
                bytes = manifest.bytes,
                "the artifact is whole"
            );
            ExitCode::SUCCESS
        }
        Err(error) => job::fail(&error, args.output.as_deref()),
    }
}

/// Fetches, with progress shown; for commands that need an artifact before they go on.
pub(crate) async fn fetch(args: &FetchArgs) -> Result<Manifest, JobError> {
    if let Some(manifest) = already_whole(args).filter(|_| !args.verify) {
        return Ok(manifest);
    }
    let (sender, progress) = watch::channel(Progress::default());
    if let Some(address) = args.listen {
        serve_progress(address, progress.clone()).await;
    }
    let hub = args.source.hub()?;
    let artifact = args.source.find(&hub).await?;
    if let Some(expected) = args
        .digest
        .as_deref()
        .filter(|digest| *digest != artifact.digest)
    {
        let (expected, found) = (expected.to_owned(), artifact.digest);
        return Err(fetch::Error::DigestMismatch {
            repo: artifact.repo,
            expected,
            found,
        }
        .into());
    }
    let options = Options {
        connections: usize::from(args.connections),
        verify: args.verify,
        ..Options::new(&args.dest)
    };
    tokio::select! {
        outcome = fetch::fetch(&hub, &artifact, &options, sender) => Ok(outcome?),
        // The channel's sender lives in the branch above, so showing never ends first.
        () = show(progress, &args.source.quant) => {
            Err(JobError::transient("IoError", "progress ended before the fetch"))
        }
    }
}

/// A volume that holds what is asked for needs no hub, not even a reachable one. Only a commit id and a digest say
/// exactly what is asked for.
fn already_whole(args: &FetchArgs) -> Option<Manifest> {
    let manifest = Manifest::read(&args.dest)?;
    let same = manifest.repo == args.source.repo
        && manifest.commit == args.source.revision
        && Some(&manifest.digest) == args.digest.as_ref();
    (same && manifest.is_whole(&args.dest)).then_some(manifest)
}

/// `GET /progress` until the process ends. A fetch without it is still a fetch, so a taken address is only a warning.
pub(crate) async fn serve_progress(address: SocketAddr, progress: watch::Receiver<Progress>) {
    let listener = match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%address, %error, "no GET /progress: cannot listen");
            return;
        }
    };
    let answer = move || std::future::ready(Json(progress.borrow().clone()));
    let routes = axum::Router::new().route("/progress", get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
}

/// Shows progress until cancelled.
async fn show(progress: watch::Receiver<Progress>, quant: &str) {
    if std::io::stderr().is_terminal() {
        bar(progress, quant).await
    } else {
        log(progress).await
    }
}

async fn bar(mut progress: watch::Receiver<Progress>, quant: &str) {
    let bar = ProgressBar::new(0).with_prefix(quant.to_owned());
    let template = "{prefix} {bar:30} {percent:>3}% {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    loop {
        let now = progress.borrow_and_update().clone();
        bar.set_length(now.bytes);
        bar.set_position(now.downloaded);
        bar.set_message(line(&now));
        if progress.changed().await.is_err() {
            bar.finish();
            return std::future::pending().await;
        }
    }
}

async fn log(progress: watch::Receiver<Progress>) {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        tracing::info!("{}", line(&progress.borrow()));
    }
}

/// `1.20 GiB of 9.00 GiB, 2/3 shards, 110.00 MiB/s, 35 minutes left`
fn line(progress: &Progress) -> String {
    let Progress {
        state,
        bytes,
        downloaded,
        bytes_per_second,
        eta_seconds,
        shards,
        shards_done,
        message,
    } = progress;
    let mut line = format!(
        "{} of {}, {shards_done}/{shards} shards",
        HumanBytes(*downloaded),
        HumanBytes(*bytes)
    );
    match state {
        State::Listing => line = "asking the hub".to_owned(),
        State::Verifying => line.push_str(", verifying"),
        State::Downloading => {
            line.push_str(&format!(", {}/s", HumanBytes(*bytes_per_second)));
            if let Some(seconds) = eta_seconds {
                line.push_str(&format!(
                    ", {} left",
                    HumanDuration(Duration::from_secs(*seconds))
                ));
            }
        }
        State::Done | State::Failed => {}
    }
    if !message.is_empty() {
        line.push_str(" · ");
        line.extend(message.chars().take(120));
    }
    line
}
