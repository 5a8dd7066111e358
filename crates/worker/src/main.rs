//! The `kimi` command: everything that happens to a model outside the operator, one subcommand per
//! module. It must not know how a subcommand does its work.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod chat;
mod cmd_bench;
mod cmd_chat;
mod cmd_compare;
mod cmd_convert;
mod cmd_eval;
mod cmd_fetch;
mod cmd_inspect;
mod cmd_inspect_remote;
mod cmd_perplexity;
mod cmd_plan;
mod cmd_run;
mod cmd_serve;
mod cmd_split;
mod cmd_verify;
mod hub_source;
mod job;
mod local_facts;
mod model_args;
mod planning;
mod serving;
mod template_args;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Plans, fetches, inspects and serves Moonshot's Kimi models.
#[derive(Debug, Parser)]
#[command(name = "kimi", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plan what serving a model takes: disk, RAM, VRAM, time, and whether it fits.
    Plan(cmd_plan::PlanArgs),
    /// Show what a local GGUF model is made of.
    Inspect(cmd_inspect::InspectArgs),
    /// Inspect a quant on a hub without downloading it.
    InspectRemote(cmd_inspect_remote::InspectRemoteArgs),
    /// Fetch a quant from a hub, resumable and verified.
    Fetch(cmd_fetch::FetchArgs),
    /// Check a model that is on a volume already, and report what it is.
    Verify(cmd_verify::VerifyArgs),
    /// Serve a model behind the OpenAI API.
    Serve(cmd_serve::ServeArgs),
    /// Plan, fetch and serve a KimiModel on this machine, without a cluster.
    Run(cmd_run::RunArgs),
    /// Talk with a model, here or on a server.
    Chat(cmd_chat::ChatArgs),
    /// Judge a model by its perplexity on a text.
    Perplexity(cmd_perplexity::PerplexityArgs),
    /// Compare a model's logits with a reference's, or make a reference.
    Eval(cmd_eval::EvalArgs),
    /// Compare two models, tensor by tensor and on a text.
    Compare(cmd_compare::CompareArgs),
    /// Time a model: tokens per second, as llama-bench counts them.
    Bench(cmd_bench::BenchArgs),
    /// Split a GGUF model into shards.
    Split(cmd_split::SplitArgs),
    /// Convert safetensors or a GGUF model to a GGUF file of a plain type.
    Convert(cmd_convert::ConvertArgs),
}

impl Command {
    /// Long-running commands say what they do; the others speak through their output.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Fetch(_) | Self::Verify(_) | Self::Serve(_) | Self::Run(_) | Self::Convert(_) => {
                "info"
            }
            Self::Plan(_)
            | Self::Inspect(_)
            | Self::InspectRemote(_)
            | Self::Chat(_)
            | Self::Perplexity(_)
            | Self::Eval(_)
            | Self::Bench(_)
            | Self::Compare(_)
            | Self::Split(_) => "warn",
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // hf-hub calls each failed attempt an error; whoever retries says more about it.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{},hf_hub=off", command.log_level())));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match command {
        Command::Plan(args) => cmd_plan::run(&args),
        Command::Inspect(args) => finish(cmd_inspect::run(&args)),
        Command::InspectRemote(args) => cmd_inspect_remote::run(&args),
        Command::Fetch(args) => cmd_fetch::run(&args),
        Command::Verify(args) => cmd_verify::run(&args),
        Command::Serve(args) => cmd_serve::run(args),
        Command::Run(args) => cmd_run::run(args),
        Command::Chat(args) => cmd_chat::run(args).unwrap_or_else(failed),
        Command::Perplexity(args) => finish(cmd_perplexity::run(&args)),
        Command::Eval(args) => finish(cmd_eval::run(&args)),
        Command::Compare(args) => finish(cmd_compare::run(&args)),
        Command::Bench(args) => finish(cmd_bench::run(&args)),
        Command::Split(args) => finish(cmd_split::run(args)),
        Command::Convert(args) => finish(cmd_convert::run(args)),
    }
}

/// The exit code of a command for people.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(failed, |()| ExitCode::SUCCESS)
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
