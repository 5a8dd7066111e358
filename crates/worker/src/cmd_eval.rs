//! `kimi eval`: a model's logits beside a reference's, or a reference made of a model. It must not know
//! how logits are computed; the engine does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use engine::{Distance, Judged, Progress, Reference, Window};
use serde_json::json;

use crate::model_args::{self, ModelArgs, Output, TextArgs};

/// Arguments of `kimi eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH")]
    model: PathBuf,
    /// Reference logits to compare with: JSON, as testdata/README.md describes it.
    #[arg(long, value_name = "FILE", required_unless_present = "save")]
    logits: Option<PathBuf>,
    /// Make a reference of this model instead, and write it here; needs --file.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "logits",
        requires = "file"
    )]
    save: Option<PathBuf>,
    /// Text to make a reference of.
    #[arg(short, long, value_name = "TEXT", requires = "save")]
    file: Option<PathBuf>,
    #[command(flatten)]
    text: TextArgs,
    /// In a reference, every how manyeth token of the second half of each window.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "save")]
    every: usize,
    /// In a reference, how many of the likeliest next tokens.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "save")]
    top: usize,
    #[command(flatten)]
    how: ModelArgs,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Prints distances, or writes a reference.
pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    match (&args.save, &args.file, &args.logits) {
        (Some(save), Some(file), _) => make(args, file, save),
        (_, _, Some(logits)) => judge(args, logits),
        // clap asks for one of them.
        _ => anyhow::bail!("give --logits, or --save and --file"),
    }
}

fn make(args: &EvalArgs, file: &Path, save: &Path) -> anyhow::Result<()> {
    let TextArgs { ctx_size, chunks } = args.text;
    let window = Window {
        context: ctx_size,
        chunks,
        every: args.every,
        top: args.top,
    };
    let options = args.how.options(&args.model, Some(ctx_size));
    let text = model_args::read(file)?;
    let references = engine::reference(&options, &text, window, &Progress::new())?;
    let json = serde_json::to_string(&references)? + "\n";
    fs::write(save, json).with_context(|| format!("cannot write {}", save.display()))
}

fn judge(args: &EvalArgs, logits: &Path) -> anyhow::Result<()> {
    let references: Vec<Reference> = serde_json::from_str(&model_args::read(logits)?)
        .with_context(|| format!("{} is no reference", logits.display()))?;
    let options = args.how.options(&args.model, None);
    let judged = engine::evaluate(&options, &references, &Progress::new())?;
    let total = Distance::total(judged.iter().map(|judged| judged.distance));
    match args.output {
        Output::Table => table(&judged, &total),
        Output::Json => {
            let texts = judged.iter().map(|one| {
                let mut row = row(&one.distance);
                row["name"] = json!(one.name);
                row["tokenizedAlike"] = json!(one.tokenized_alike);
                row
            });
            let texts: Vec<_> = texts.collect();
            println!("{:#}", json!({"texts": texts, "total": row(&total)}));
        }
    }
    Ok(())
}

fn row(distance: &Distance) -> serde_json::Value {
    json!({
        "positions": distance.positions,
        "largestDelta": distance.logit,
        "meanDivergence": distance.mean_divergence,
        "largestDivergence": distance.largest_divergence,
        "sameTop": distance.same_top,
    })
}

fn table(judged: &[Judged], total: &Distance) {
    println!(
        "{:<16}{:>10}{:>12}{:>12}{:>12}{:>12}",
        "TEXT", "POSITIONS", "MAX |DELTA|", "MEAN KL", "MAX KL", "SAME TOP"
    );
    let print = |name: &str, distance: &Distance| {
        let share = distance.same_top as f64 * 100.0 / distance.positions.max(1) as f64;
        println!(
            "{name:<16}{:>10}{:>12.2e}{:>12.2e}{:>12.2e}{share:>10.2} %",
            distance.positions,
            distance.logit,
            distance.mean_divergence,
            distance.largest_divergence
        );
    };
    for one in judged {
        print(&one.name, &one.distance);
        if !one.tokenized_alike {
            println!("  this engine makes other tokens of the text; the reference's were used");
        }
    }
    print("all", total);
}
