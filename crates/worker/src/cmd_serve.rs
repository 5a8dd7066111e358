//! `kimi serve`: one model behind the OpenAI API, as the container `server` runs it. It must not
//! know Kubernetes, only files, flags and signals.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use engine::{ActivationType, CacheType, Compat, Options};
use fetch::Manifest;
use server::{ApiKeys, Config};

use crate::{
    job::{self, JobError},
    serving::{self, Serving},
    template_args::TemplateArgs,
};

/// Arguments of `kimi serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH", required_unless_present = "manifest")]
    model: Option<PathBuf>,
    /// Manifest of a fetched artifact, to serve what it lists.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    manifest: Option<PathBuf>,
    /// Name that requests may use; several may be given [default: the name in the file].
    #[arg(short, long, value_name = "NAME")]
    alias: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
    /// Port of the OpenAI API.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the probes /livez and /readyz, and of /metrics without a key.
    #[arg(long, default_value_t = 8081)]
    health_port: u16,
    /// Tokens of context per slot [default: the model's own, at most 32768].
    #[arg(short, long, value_name = "TOKENS")]
    ctx_size: Option<u32>,
    /// Worker threads [default: all cores].
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Requests served at the same time, each with its own KV cache.
    #[arg(long, value_name = "N", default_value_t = 1)]
    parallel: usize,
    /// How the KV cache is stored: f16, q8_0 or f32.
    #[arg(
        long,
        visible_alias = "cache-type-k",
        value_name = "TYPE",
        default_value_t
    )]
    cache_type: CacheType,
    /// What activations are rounded to before a product with quantized weights: int8, or f32 (nothing, slower).
    #[arg(long, value_name = "TYPE", default_value_t)]
    activations: ActivationType,
    /// Reproduce what another engine does differently from the model's own code: llama.cpp.
    #[arg(long, value_name = "ENGINE")]
    compat: Option<Compat>,
    /// File with the API keys that requests must carry, one per line; read again when it changes.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Longest wait for requests under way after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    drain_timeout: u64,
    /// Where to write the reason for giving up, as JSON.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Quant for `system_fingerprint` [default: the file's own word].
    #[arg(long, env = "QUANT_TYPE", hide = true)]
    quant_type: Option<String>,
    /// Artifact id for `system_fingerprint`.
    #[arg(long, env = "KIMI_ARTIFACT", hide = true)]
    artifact: Option<String>,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let output = args.output.clone();
    let served = serving(args).and_then(|serving| serving::serve(serving).map_err(JobError::from));
    served.unwrap_or_else(|error| job::fail(&error, output.as_deref()))
}

fn serving(args: ServeArgs) -> Result<Serving, JobError> {
    let api_keys = args
        .api_key_file
        .map(ApiKeys::open)
        .transpose()
        .map_err(|error| {
            let message = format!("{error}; create the Secret or correct its name and key");
            JobError::transient("SecretMissing", message)
        })?;
    let model = match (args.model, &args.manifest) {
        (Some(model), _) => model,
        (None, Some(manifest)) => first_shard(manifest)
            .map_err(|message| JobError::transient("ModelNotFound", message))?,
        // clap asks for one of them.
        (None, None) => {
            return Err(JobError::permanent(
                "ModelNotFound",
                "give --model or --manifest",
            ));
        }
    };
    Ok(Serving {
        options: Options {
            model,
            context: args.ctx_size,
            threads: args.threads,
            slots: args.parallel,
            cache_type: args.cache_type,
            compat: args.compat,
            template: args.template.into(),
            activations: args.activations,
        },
        config: Config {
            names: args.alias,
            api_keys,
            quant: args.quant_type.filter(|quant| !quant.is_empty()),
            artifact: args.artifact.filter(|artifact| !artifact.is_empty()),
        },
        address: SocketAddr::new(args.host, args.port),
        health: Some(SocketAddr::new(args.host, args.health_port)),
        drain_timeout: Duration::from_secs(args.drain_timeout),
    })
}

/// The first shard of a fetched artifact, when all of it is there.
fn first_shard(path: &Path) -> Result<PathBuf, String> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let manifest = Manifest::read(dir).ok_or_else(|| {
        format!(
            "there is no manifest at {}; the artifact is not fetched yet",
            path.display()
        )
    })?;
    let first = manifest
        .files
        .first()
        .map(|file| Path::new(&file.path))
        .filter(|first| {
            first
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
        })
        .ok_or_else(|| {
            format!(
                "the manifest at {} names no shard of its own",
                path.display()
            )
        })?;
    if !manifest.is_whole(dir) {
        let message = "lists files that are missing or of another size; fetch the artifact again";
        return Err(format!("the manifest at {} {message}", path.display()));
    }
    Ok(dir.join(first))
}
