//! `kimi run`: a KimiModel on this machine, without a cluster: plan, fetch, serve, in one process. It
//! must not do any of the three itself.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use engine::{CacheType, Options};
use indicatif::HumanDuration;
use server::{ApiKeys, Config};
use sizing::{Facts, Fits, Plan};
use spec::{CpuFallback, Document, HardwareName};
use tokio::time::timeout;

use crate::{
    cmd_fetch::{self, FetchArgs},
    cmd_inspect_remote,
    hub_source::HubSource,
    job::{self, JobError},
    local_facts::{self, Wanted},
    planning,
    serving::{self, Serving},
};

/// Connections of a download, as `kimi fetch` has them.
const CONNECTIONS: u8 = 8;
/// Longest wait for requests under way after Ctrl-C; a second Ctrl-C ends it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait for the hub where a verified artifact is on the disk.
const OFFLINE_AFTER: Duration = Duration::from_secs(10);
/// Larger than any spec.
const MAX_SPEC: u64 = 1 << 20;

/// Arguments of `kimi run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// YAML file with one KimiModel.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// Where models are kept [default: ~/.cache/kimi-operator/models].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port of the OpenAI API [default: that of the file].
    #[arg(long)]
    port: Option<u16>,
    /// Hub to fetch from [default: that of the file, then huggingface.co].
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// File with a hub token; without it, HF_TOKEN of the environment counts.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the API keys that requests must carry, one per line.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Worker threads [default: all cores].
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How the KV cache is stored: f16, q8_0 or f32.
    #[arg(
        long,
        visible_alias = "cache-type-k",
        value_name = "TYPE",
        default_value_t
    )]
    cache_type: CacheType,
}

/// What has to be known before serving.
struct Ready {
    document: Document,
    facts: Facts,
    plan: Plan,
    model: PathBuf,
}

/// Runs until Ctrl-C or SIGTERM. A plan that does not fit gives 1.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let ready = match prepare(&args) {
        Ok(ready) => ready,
        Err(error) => return job::fail(&error, None),
    };
    let Ready {
        document,
        facts,
        plan,
        model,
    } = ready;
    let api_keys = match args.api_key_file.map(ApiKeys::open).transpose() {
        Ok(api_keys) => api_keys,
        Err(error) => {
            return job::fail(
                &JobError::permanent("SecretMissing", error.to_string()),
                None,
            );
        }
    };
    if document.spec.serving.api_key_secret_ref.is_some() && api_keys.is_none() {
        tracing::warn!(
            "the file's apiKeySecretRef needs a cluster; give --api-key-file, or anybody may ask"
        );
    }
    let mut names = vec![document.name];
    names.extend(document.spec.model);
    let serving = Serving {
        options: Options {
            context: u32::try_from(plan.context).ok(),
            threads: args.threads,
            cache_type: args.cache_type,
            ..Options::new(model)
        },
        config: Config {
            names,
            api_keys,
            quant: Some(facts.quant),
            artifact: None,
        },
        address: SocketAddr::new(args.host, args.port.unwrap_or(document.spec.serving.port)),
        health: None,
        drain_timeout: DRAIN_TIMEOUT,
    };
    match serving::serve(serving) {
        Ok(code) => code,
        Err(failure) => job::fail(&failure.into(), None),
    }
}

fn prepare(args: &RunArgs) -> Result<Ready, JobError> {
    let document = read(&args.file)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| JobError::transient("IoError", format!("starting threads: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = plan_and_fetch(args, document) => outcome,
            () = job::asked_to_end() => Err(JobError::transient(
                "Interrupted",
                "asked to end; the next run goes on from the pieces that are on the disk",
            )),
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn plan_and_fetch(args: &RunArgs, mut document: Document) -> Result<Ready, JobError> {
    document.spec.memory = memory_budget(document.spec.memory.as_deref());
    let bad_spec = |error: planning::PlanError| JobError::permanent("BadSpec", error.to_string());
    let mut resolved = planning::resolve(&document.spec).map_err(bad_spec)?;
    resolved.cache_type = args.cache_type;
    // What `kimi plan` refuses from its tables needs no network to be refused here.
    if let Ok(estimate) = planning::plan(&resolved, None, sizing::plan::DEFAULT_BANDWIDTH_BITS)
        && estimate.fits == Fits::No
    {
        return Err(JobError::transient("DoesNotFit", estimate.reason));
    }
    check_hardware(&document)?;
    if let Some(volume) = document
        .spec
        .source
        .as_ref()
        .and_then(|source| source.pvc.as_ref())
    {
        let message = format!(
            "source.pvc names the volume {} of a cluster: serve the files with kimi serve --model",
            volume.claim_name
        );
        return Err(JobError::permanent("BadSpec", message));
    }
    let mut source = hub_source(
        args,
        &document,
        resolved.repo.clone(),
        resolved.quant.clone(),
    );
    let models = models_dir(args)?;
    let facts = inspect_or_kept(&source, &models).await?;
    let plan = planning::plan(
        &resolved,
        Some(&facts),
        sizing::plan::DEFAULT_BANDWIDTH_BITS,
    )
    .map_err(bad_spec)?;
    print(
        &document.name,
        &facts,
        &plan,
        resolved.auto_reason.as_deref(),
    );
    if plan.fits == Fits::No {
        // Not for ever: another machine may run the same file.
        return Err(JobError::transient("DoesNotFit", plan.reason));
    }
    source.revision.clone_from(&facts.commit);
    let dest = models.join(directory_name(&facts));
    fs::create_dir_all(&dest).map_err(|error| {
        JobError::transient(
            "IoError",
            format!("cannot create {}: {error}", dest.display()),
        )
    })?;
    let fetch = FetchArgs {
        source,
        dest: dest.clone(),
        digest: Some(facts.digest.clone()),
        verify: false,
        connections: CONNECTIONS,
        listen: None,
        output: None,
    };
    let manifest = cmd_fetch::fetch(&fetch).await?;
    let first = manifest.files.first().ok_or_else(|| {
        JobError::permanent("ModelNotFound", "the artifact has no files".to_owned())
    })?;
    let model = dest.join(&first.path);
    Ok(Ready {
        document,
        facts,
        plan,
        model,
    })
}

/// Facts from the hub or, when it cannot be reached, from an artifact that an earlier run fetched and verified.
async fn inspect_or_kept(source: &HubSource, models: &Path) -> Result<Facts, JobError> {
    let wanted = Wanted {
        repo: &source.repo,
        quant: &source.quant,
        revision: &source.revision,
        path: source.path.as_deref(),
    };
    let prefix = directory_prefix(&source.repo, &source.quant);
    let Some(kept) = local_facts::kept(models, &prefix, &wanted) else {
        return cmd_inspect_remote::inspect(source).await;
    };
    let problem = match timeout(OFFLINE_AFTER, cmd_inspect_remote::inspect(source)).await {
        Err(_) => format!("no answer in {} s", OFFLINE_AFTER.as_secs()),
        Ok(Err(error)) if !error.permanent => error.message,
        Ok(outcome) => return outcome,
    };
    tracing::warn!(
        commit = kept.commit,
        "starting offline from the files that an earlier run verified, {} may have newer ones: {problem}",
        source.repo
    );
    Ok(kept)
}

fn read(path: &Path) -> Result<Document, JobError> {
    let bad =
        |problem: String| JobError::permanent("BadSpec", format!("{}: {problem}", path.display()));
    let size = fs::metadata(path)
        .map_err(|error| bad(error.to_string()))?
        .len();
    if size > MAX_SPEC {
        return Err(bad(format!("{size} bytes, at most {MAX_SPEC} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    spec::load(&text).map_err(|error| bad(error.to_string()))
}

/// The file's RAM budget, bounded by what this machine has. What is no quantity stays as it is, for
/// the plan to refuse.
fn memory_budget(asked: Option<&str>) -> Option<String> {
    let machine = engine::memory_limit();
    match asked {
        None => machine.map(|bytes| bytes.to_string()),
        Some(text) => Some(match spec::parse_quantity(text) {
            Some(bytes) => bytes.min(machine.unwrap_or(u64::MAX)).to_string(),
            None => text.to_owned(),
        }),
    }
}

/// This process computes on the CPU.
fn check_hardware(document: &Document) -> Result<(), JobError> {
    let spec = &document.spec;
    if spec.hardware == HardwareName::Cpu || spec.serving.cpu_fallback == CpuFallback::Allow {
        return Ok(());
    }
    let message = format!(
        "hardware is {}, but this engine computes on the CPU: set hardware: CPU, or serving.cpuFallback: Allow",
        spec.hardware.as_str()
    );
    Err(JobError::permanent("HardwareUnavailable", message))
}

fn hub_source(args: &RunArgs, document: &Document, repo: String, quant: String) -> HubSource {
    let given = document
        .spec
        .source
        .as_ref()
        .and_then(|source| source.hugging_face.as_ref());
    let endpoint = args
        .endpoint
        .clone()
        .or_else(|| given.and_then(|given| given.endpoint.clone()));
    HubSource {
        repo,
        revision: given
            .map_or(spec::DEFAULT_REVISION, |given| &given.revision)
            .to_owned(),
        quant,
        path: given.and_then(|given| given.path.clone()),
        endpoint: endpoint.unwrap_or_else(|| fetch::DEFAULT_ENDPOINT.to_owned()),
        token_file: args.token_file.clone(),
    }
}

fn models_dir(args: &RunArgs) -> Result<PathBuf, JobError> {
    if let Some(dir) = &args.dir {
        return Ok(dir.clone());
    }
    let home = std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .ok_or_else(|| {
            JobError::permanent(
                "BadSpec",
                "HOME is not set: say with --dir where models are kept",
            )
        })?;
    Ok(Path::new(&home).join(".cache/kimi-operator/models"))
}

/// One directory per artifact, so that two quants never mix. Repository and quant come from the hub
/// and the spec, so only harmless characters are kept.
fn directory_name(facts: &Facts) -> String {
    let digest: String = facts.digest.chars().take(10).collect();
    format!("{}{digest}", directory_prefix(&facts.repo, &facts.quant))
}

/// What the directories of a repository's quant begin with.
fn directory_prefix(repo: &str, quant: &str) -> String {
    let harmless = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = repo.replace('/', "--").chars().map(harmless).collect();
    let quant: String = quant.chars().map(harmless).collect();
    format!("{name}--{quant}--")
}

fn print(name: &str, facts: &Facts, plan: &Plan, auto: Option<&str>) {
    let verdict = match plan.fits {
        Fits::Yes => "yes",
        Fits::Tight => "tight",
        Fits::No => "no",
    };
    println!(
        "model     {name}: {} {} at {}",
        facts.repo, facts.quant, facts.commit
    );
    if let Some(reason) = auto {
        println!("quant     {reason}");
    }
    println!(
        "download  {}, {} at 1 Gbit/s",
        size(facts.bytes),
        HumanDuration(Duration::from_secs(plan.download_seconds))
    );
    println!(
        "RAM       {} with everything resident, {} at least",
        size(plan.ram_bytes),
        size(plan.ram_min_bytes)
    );
    println!("fits      {verdict}: {}", plan.reason);
}

/// Decimal, as everywhere in a plan.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
