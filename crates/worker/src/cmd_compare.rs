//! `kimi compare`: two quants of a model side by side, tensor by tensor and on a text. It must not know
//! how either is computed; the engine does.

use std::path::PathBuf;

use engine::{Progress, TensorComparison, TextComparison};
use serde_json::json;

use crate::model_args::{self, ModelArgs, Output, TextArgs};

/// Arguments of `kimi compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The model to measure from: a .gguf file, a shard of a set, or a directory holding one model.
    first: PathBuf,
    /// The model to measure.
    second: PathBuf,
    /// Text that both read; without it only tensors are compared.
    #[arg(short, long, value_name = "TEXT")]
    file: Option<PathBuf>,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    how: ModelArgs,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Prints the comparison.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let progress = Progress::new();
    let TextArgs { ctx_size, chunks } = args.text;
    let context = args.file.is_some().then_some(ctx_size);
    let [first, second] = [&args.first, &args.second].map(|path| args.how.options(path, context));
    let tensors = engine::compare_tensors(&first, &second, &progress)?;
    let text = match &args.file {
        None => None,
        Some(file) => {
            let text = model_args::read(file)?;
            Some(engine::compare_text(
                &first, &second, &text, ctx_size, chunks, &progress,
            )?)
        }
    };
    match args.output {
        Output::Json => print_json(&tensors, text.as_ref()),
        Output::Table => {
            print_tensors(&tensors);
            if let Some(text) = &text {
                print_text(text);
            }
        }
    }
    Ok(())
}

fn print_json(tensors: &TensorComparison, text: Option<&TextComparison>) {
    let both: Vec<_> = tensors
        .both
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "types": tensor.types,
                "values": tensor.values,
                "relativeError": tensor.relative,
                "largestDelta": tensor.largest,
            })
        })
        .collect();
    let text = text.map(|text| {
        json!({
            "tokens": text.tokens,
            "meanDivergence": text.mean_divergence,
            "medianDivergence": text.median_divergence,
            "p99Divergence": text.p99_divergence,
            "largestDivergence": text.largest_divergence,
            "sameTop": text.same_top,
            "largestDelta": text.logit,
            "perplexity": text.perplexity,
        })
    });
    println!(
        "{:#}",
        json!({
            "tensors": both,
            "onlyFirst": tensors.only_first,
            "onlySecond": tensors.only_second,
            "text": text,
        })
    );
}

fn print_tensors(tensors: &TensorComparison) {
    println!(
        "{:<36}{:>9}{:>9}{:>16}{:>13}",
        "TENSOR", "FIRST", "SECOND", "RELATIVE ERROR", "MAX |DELTA|"
    );
    let mut equal = 0;
    for tensor in &tensors.both {
        if tensor.relative == 0.0 {
            equal += 1;
            continue;
        }
        let [first, second] = tensor.types;
        println!(
            "{:<36}{first:>9}{second:>9}{:>16.3e}{:>13.3e}",
            tensor.name, tensor.relative, tensor.largest
        );
    }
    println!(
        "{equal} of {} tensors hold the same values",
        tensors.both.len()
    );
    for (names, which) in [
        (&tensors.only_first, "first"),
        (&tensors.only_second, "second"),
    ] {
        for name in names {
            println!("only in the {which}: {name}");
        }
    }
}

fn print_text(text: &TextComparison) {
    let share = text.same_top as f64 * 100.0 / text.tokens.max(1) as f64;
    let [first, second] = text.perplexity;
    println!("\ntokens           {}", text.tokens);
    println!(
        "KL divergence    {:.3e} mean, {:.3e} median, {:.3e} at 99 %, {:.3e} largest",
        text.mean_divergence, text.median_divergence, text.p99_divergence, text.largest_divergence
    );
    println!("same top token   {share:.2} %");
    println!("max |delta|      {:.3e}", text.logit);
    println!("perplexity       {first:.4} first, {second:.4} second");
}
