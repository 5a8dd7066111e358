//! Entry point of `kimi-operator`: `run` the controller, print the `crd`, print the plain `manifests`, list `orphans`. It
//! only reads arguments and starts things.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kimi_operator::telemetry::{self, LogFormat, Telemetry};
use kimi_operator::{controller, manifests, orphans};

/// Runs Moonshot's Kimi models on Kubernetes with the one GPU you have.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch KimiModels and do what they say.
    Run(Run),
    /// Print the CustomResourceDefinition.
    Crd,
    /// Print everything that `kubectl apply` needs: namespace, account, roles, Deployment and CRD.
    Manifests,
    /// List retained volumes whose KimiModel is gone.
    Orphans(Orphans),
}

#[derive(Debug, Args)]
struct Orphans {
    /// Look in this namespace only; in all of them when absent.
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print them.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct Run {
    /// Image with the `kimi` command, used by every pod of a model.
    #[arg(long, env = "KIMI_WORKER_IMAGE")]
    worker_image: String,
    /// Pull policy of that image.
    #[arg(long, env = "KIMI_IMAGE_PULL_POLICY", default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: String,
    /// Watch this namespace only; all of them when absent.
    #[arg(long, env = "KIMI_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// `runAsUser` of every pod; leave out where the platform assigns one (OpenShift).
    #[arg(long, env = "KIMI_RUN_AS_USER", value_parser = clap::value_parser!(i64).range(1..))]
    run_as_user: Option<i64>,
    /// `fsGroup` of every pod; leave out where the platform assigns one (OpenShift).
    #[arg(long, env = "KIMI_FS_GROUP", value_parser = clap::value_parser!(i64).range(1..))]
    fs_group: Option<i64>,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "KIMI_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How log lines look; `RUST_LOG` chooses which.
    #[arg(long, env = "KIMI_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Crd => {
            print!("{}", manifests::crd()?);
            Ok(())
        }
        Command::Manifests => {
            print!("{}", manifests::install()?);
            Ok(())
        }
        Command::Orphans(args) => list_orphans(&args),
    }
}

/// Two workers: reconciles wait for the API server, they do not compute, and each further worker costs stack and
/// allocator memory on a node whose memory is for the model.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(args: Run) -> anyhow::Result<()> {
    telemetry::init_logs(args.log_format);
    let telemetry = Arc::new(Telemetry::new());
    let listener = telemetry::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let endpoints = tokio::spawn(telemetry::serve(listener, Arc::clone(&telemetry)));
    let client = client().await?;
    let settings = controller::Settings {
        worker_image: args.worker_image,
        image_pull_policy: args.image_pull_policy,
        run_as_user: args.run_as_user,
        fs_group: args.fs_group,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %args.listen, "starting");
    let result = controller::run(client, args.watch_namespace, settings, telemetry).await;
    endpoints.abort();
    result.context("the controller ended")
}

/// A client for the cluster that this process runs in, or that the kubeconfig names.
async fn client() -> anyhow::Result<kube::Client> {
    // Cargo unifies features: built beside the worker, rustls has two providers and would refuse to choose. An error
    // means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer()
        .await
        .context("no Kubernetes found: not in a pod, and no kubeconfig")?;
    kube::Client::try_from(config).context("cannot make a Kubernetes client")
}

#[tokio::main(flavor = "current_thread")]
async fn list_orphans(args: &Orphans) -> anyhow::Result<()> {
    let client = client().await?;
    let orphans = orphans::list(&client, args.namespace.as_deref())
        .await
        .context("cannot list PersistentVolumeClaims and KimiModels")?;
    match args.output {
        Output::Table => print!("{}", orphans::table(&orphans, jiff::Timestamp::now())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&orphans)?),
    }
    Ok(())
}
