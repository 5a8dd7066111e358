//! Entry point of `kimi-operator`: `run` the controller, print the `crd`, print the plain `manifests`, list `orphans`. It
//! only reads arguments and starts things.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kimi_operator::leader::{self, Election};
use kimi_operator::telemetry::{self, LogFormat, Telemetry};
use kimi_operator::{check, controller, manifests, orphans, report};
use kube::Client;
use kube::client::ClientBuilder;

/// Runs Moonshot's Kimi models on Kubernetes with the one GPU you have.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const NO_CLIENT: &str = "cannot make a Kubernetes client";

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
    /// See whether the API server serves KimiModels and an operator leads.
    Check(Check),
    /// Write what helps to find a fault (objects, events, logs, versions; no secrets) into a new directory.
    Report(Report),
}

#[derive(Debug, Args)]
struct Check {
    /// Look in this namespace only; in all of them when absent.
    #[arg(long, env = "KIMI_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Name of the operator's Lease, in the namespace that this runs in.
    #[arg(long, env = "KIMI_LEASE_NAME", default_value = "kimi-operator")]
    lease_name: String,
}

#[derive(Debug, Args)]
struct Report {
    /// Look at KimiModels of this namespace only; at all of them when absent.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Where the operator runs.
    #[arg(long, default_value = "kimi-system")]
    operator_namespace: String,
    /// Directory to write into; it must not exist.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
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
    /// Fields of spec.pod that KimiModels may not set.
    #[arg(long, env = "KIMI_FORBID_POD_FIELDS", value_delimiter = ',',
        value_parser = clap::builder::PossibleValuesParser::new(spec::pod::POD_FIELDS))]
    forbid_pod_fields: Vec<String>,
    /// Name of the Lease, in the operator's own namespace, by which one of several operators leads.
    #[arg(long, env = "KIMI_LEASE_NAME", default_value = "kimi-operator")]
    lease_name: String,
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
        Command::Check(args) => look(&args),
        Command::Report(args) => write_report(&args),
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
    let config = config().await?;
    // The Lease's own requests are the one thing that is written without holding it.
    let electing = Client::try_from(config.clone()).context(NO_CLIENT)?;
    let writing = ClientBuilder::try_from(config).context(NO_CLIENT)?;
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    let election = Election::new(&electing, &args.lease_name, &host);
    let client = leader::fenced(writing, election.tenure());
    let settings = controller::Settings {
        worker_image: args.worker_image,
        image_pull_policy: args.image_pull_policy,
        run_as_user: args.run_as_user,
        fs_group: args.fs_group,
        forbidden_pod_fields: args.forbid_pod_fields,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %args.listen, "starting");
    let result = controller::run(
        client,
        args.watch_namespace,
        settings,
        telemetry,
        Some(election),
    )
    .await;
    endpoints.abort();
    result.context("the controller ended")
}

/// The cluster that this process runs in, or that the kubeconfig names.
async fn config() -> anyhow::Result<kube::Config> {
    // Cargo unifies features: built beside the worker, rustls has two providers and would refuse to choose. An error
    // means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    kube::Config::infer()
        .await
        .context("no Kubernetes found: not in a pod, and no kubeconfig")
}

#[tokio::main(flavor = "current_thread")]
async fn list_orphans(args: &Orphans) -> anyhow::Result<()> {
    let client = Client::try_from(config().await?).context(NO_CLIENT)?;
    let orphans = orphans::list(&client, args.namespace.as_deref())
        .await
        .context("cannot list PersistentVolumeClaims and KimiModels")?;
    match args.output {
        Output::Table => print!("{}", orphans::table(&orphans, jiff::Timestamp::now())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&orphans)?),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn look(args: &Check) -> anyhow::Result<()> {
    let client = Client::try_from(config().await?).context(NO_CLIENT)?;
    let leader = check::check(&client, args.watch_namespace.as_deref(), &args.lease_name).await?;
    println!("KimiModels are served; {leader} leads");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn write_report(args: &Report) -> anyhow::Result<()> {
    let client = Client::try_from(config().await?).context(NO_CLIENT)?;
    let scope = report::Scope {
        namespace: args.namespace.clone(),
        operator_namespace: args.operator_namespace.clone(),
    };
    let bytes = report::write(&client, &scope, &args.output).await?;
    println!(
        "{} in {}; README.txt says what is missing",
        spec::format_bytes(bytes as u64),
        args.output.display()
    );
    Ok(())
}
