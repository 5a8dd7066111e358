//! `kimi inspect-remote`: facts about an artifact on a hub from its listing and its GGUF headers, without downloading
//! weights. What this engine cannot serve is refused here, before anybody fetches it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fetch::headers::{self, Step};
use fetch::{Artifact, Hub};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use gguf::Header;
use sizing::{Facts, Identity, InspectReport};

use crate::hub_source::HubSource;
use crate::job::{self, JobError};

/// Headers read at a time; each may hold some megabytes.
const PARALLEL: usize = 4;
/// The Job has a deadline: better to end with a reason and be started again than to be ended without one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Inspect a quant on a hub without downloading it: commit, shards, digest, shapes, tensor histogram.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InspectRemoteArgs {
    #[command(flatten)]
    source: HubSource,
    /// Where to write the report besides standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Inspects; exit codes as for every Job command.
pub(crate) fn run(args: &InspectRemoteArgs) -> ExitCode {
    let outcome = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                outcome = inspect(&args.source) => outcome,
                () = job::asked_to_end() => Err(JobError::transient("Interrupted", "asked to end; run it again")),
            }
        }),
        Err(error) => Err(JobError::transient("IoError", format!("starting threads: {error}"))),
    };
    match outcome {
        Ok(facts) => {
            let report = InspectReport::Facts(Box::new(facts)).to_json();
            if let Some(path) = &args.output {
                job::write(path, &report);
            }
            // The report is in the file; a closed standard output loses nothing.
            let _ = writeln!(std::io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(error) => job::fail(&error, args.output.as_deref()),
    }
}

pub(crate) async fn inspect(source: &HubSource) -> Result<Facts, JobError> {
    let hub = source.hub()?.with_patience(PATIENCE);
    let artifact = source.find(&hub).await?;
    let headers: Vec<Header> = stream::iter(0..artifact.shards.len())
        .map(|index| header(&hub, &artifact, index))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    gguf::shard::check_set(&headers)
        .map_err(|error| JobError::permanent("BadShardSet", error.to_string()))?;
    let identity = Identity {
        repo: artifact.repo.clone(),
        commit: artifact.commit.clone(),
        path: artifact.path.clone(),
        quant: source.quant.clone(),
        digest: artifact.digest.clone(),
        bytes: artifact.bytes(),
    };
    let facts = Facts::from_headers(&headers, &identity)
        .map_err(|error| JobError::permanent(error.reason(), error.to_string()))?;
    check_servable(&headers)?;
    Ok(facts)
}

async fn header(hub: &Hub, artifact: &Artifact, index: usize) -> Result<Header, JobError> {
    let shard = &artifact.shards[index];
    let parse = |bytes: &[u8]| match gguf::read_header(bytes, Some(shard.size)) {
        Ok(header) => Ok(Step::Done(header)),
        Err(gguf::Error::Incomplete { need_at_least, .. }) => Ok(Step::Need(need_at_least)),
        Err(error) => Err(JobError::permanent(
            reason(&error),
            format!("{}: {error}", shard.path),
        )),
    };
    headers::read(hub, artifact, shard, parse).await
}

fn reason(error: &gguf::Error) -> &'static str {
    match error {
        gguf::Error::NotGguf { .. } => "NotGguf",
        gguf::Error::Truncated { .. } => "TruncatedFile",
        gguf::Error::UnknownType { .. } => "UnsupportedTensorType",
        _ => "BadHeader",
    }
}

/// Types that GGUF knows and this engine has no kernels for.
pub(crate) fn check_servable(headers: &[Header]) -> Result<(), JobError> {
    let mut tensors = headers.iter().flat_map(|header| &header.tensors);
    match tensors.find(|tensor| quant::kernels(tensor.dtype).is_none()) {
        None => Ok(()),
        Some(tensor) => Err(JobError::permanent(
            "UnsupportedTensorType",
            format!(
                "tensor '{}' has type {}, for which this engine has no kernels; choose another quant",
                tensor.name,
                tensor.dtype.name()
            ),
        )),
    }
}
