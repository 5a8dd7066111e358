//! `kimi inspect`: what a local GGUF model is made of. Reads headers only, so it answers at once for
//! a model of any size. It must not load weights.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, path::PathBuf};

use anyhow::Context;
use gguf::{Header, TensorInfo, shard};
use serde::Serialize;
use sizing::{facts::Class, inspect::class_of};

/// Arguments of `kimi inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A .gguf file, any shard of a set, or a directory holding one model.
    path: PathBuf,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What is printed; the JSON has these names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    architecture: String,
    file_type: String,
    /// Tokens the model was made for; `None` where the file does not say.
    context_length: Option<u64>,
    /// Weights.
    parameters: u64,
    /// Bytes of all files, headers included.
    bytes: u64,
    shards: Vec<ShardRow>,
    bits_per_weight: Bits,
    classes: Vec<ClassRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardRow {
    path: PathBuf,
    tensors: usize,
    bytes: u64,
}

/// Mean bits of a weight; `None` of what the model has not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bits {
    overall: Option<f64>,
    experts: Option<f64>,
    other: Option<f64>,
}

/// Tensors of one class and type.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClassRow {
    class: Class,
    dtype: &'static str,
    /// Tensors.
    count: u64,
    /// Weights in them.
    parameters: u64,
    bytes: u64,
}

/// Prints the summary.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let summary = inspect(args)?;
    let text = match args.output {
        Output::Json => {
            serde_json::to_string_pretty(&summary)?
                + "
"
        }
        Output::Table => table(&summary)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn inspect(args: &InspectArgs) -> anyhow::Result<Summary> {
    let paths = shard::find_shards(&args.path)?;
    let mut headers = Vec::new();
    let mut shards = Vec::new();
    for path in paths {
        let header = gguf::open_header(&path)?;
        let bytes = std::fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        shards.push(ShardRow {
            path,
            tensors: header.tensors.len(),
            bytes,
        });
        headers.push(header);
    }
    shard::check_set(&headers)?;
    summarize(&headers, shards)
}

fn summarize(headers: &[Header], shards: Vec<ShardRow>) -> anyhow::Result<Summary> {
    let metadata = &headers.first().context("the model has no files")?.metadata;
    let architecture = metadata.get_str("general.architecture")?.to_owned();
    let tensors = || headers.iter().flat_map(|header| &header.tensors);
    let classes = classes(tensors());
    let main = classes
        .iter()
        .max_by_key(|row| row.bytes)
        .map_or("unknown", |row| row.dtype);
    let file_type = metadata.opt_u32("general.file_type")?;
    Ok(Summary {
        name: metadata
            .opt_str("general.name")?
            .unwrap_or("unnamed")
            .to_owned(),
        file_type: engine::file_type_name(file_type).unwrap_or(main).to_owned(),
        context_length: metadata.opt_u64(&format!("{architecture}.context_length"))?,
        architecture,
        parameters: tensors().map(TensorInfo::values).sum(),
        bytes: shards.iter().map(|shard| shard.bytes).sum(),
        shards,
        bits_per_weight: Bits {
            overall: bits(&classes, |_| true),
            experts: bits(&classes, |class| class == Class::Expert),
            other: bits(&classes, |class| class != Class::Expert),
        },
        classes,
    })
}

fn classes<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Vec<ClassRow> {
    let mut rows: BTreeMap<(Class, &'static str), ClassRow> = BTreeMap::new();
    for tensor in tensors {
        let (class, dtype) = (class_of(&tensor.name), tensor.dtype.name());
        let row = rows.entry((class, dtype)).or_insert(ClassRow {
            class,
            dtype,
            count: 0,
            parameters: 0,
            bytes: 0,
        });
        row.count += 1;
        row.parameters = row.parameters.saturating_add(tensor.values());
        row.bytes = row.bytes.saturating_add(tensor.bytes);
    }
    rows.into_values().collect()
}

fn bits(classes: &[ClassRow], of: impl Fn(Class) -> bool) -> Option<f64> {
    let rows = || classes.iter().filter(|row| of(row.class));
    let weights: u64 = rows().map(|row| row.parameters).sum();
    let bytes: u64 = rows().map(|row| row.bytes).sum();
    (weights > 0).then(|| (bytes as f64 * 8.0 / weights as f64 * 1000.0).round() / 1000.0)
}

fn table(summary: &Summary) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let bits = |bits: Option<f64>| bits.map_or("-".to_owned(), |bits| format!("{bits:.3}"));
    let context = summary
        .context_length
        .map_or("unknown".to_owned(), |tokens| format!("{tokens} tokens"));
    writeln!(out, "name             {}", summary.name)?;
    writeln!(out, "architecture     {}", summary.architecture)?;
    writeln!(out, "file type        {}", summary.file_type)?;
    writeln!(out, "parameters       {}", short(summary.parameters))?;
    writeln!(out, "context          {context}")?;
    writeln!(
        out,
        "size             {}B in {} file(s)",
        short(summary.bytes),
        summary.shards.len()
    )?;
    writeln!(
        out,
        "bits per weight  {} overall, {} experts, {} other",
        bits(summary.bits_per_weight.overall),
        bits(summary.bits_per_weight.experts),
        bits(summary.bits_per_weight.other),
    )?;
    writeln!(
        out,
        "\n{:<14}{:<9}{:>8}{:>14}{:>18}{:>8}",
        "CLASS", "TYPE", "TENSORS", "PARAMETERS", "BYTES", "SHARE"
    )?;
    let all: u64 = summary.classes.iter().map(|row| row.bytes).sum();
    for row in &summary.classes {
        let share = row.bytes as f64 * 100.0 / all.max(1) as f64;
        writeln!(
            out,
            "{:<14}{:<9}{:>8}{:>14}{:>18}{share:>7.1}%",
            format!("{:?}", row.class),
            row.dtype,
            row.count,
            short(row.parameters),
            row.bytes,
        )?;
    }
    if summary.shards.len() > 1 {
        writeln!(out, "\n{:<52}{:>8}{:>18}", "SHARD", "TENSORS", "BYTES")?;
        for shard in &summary.shards {
            let name = shard
                .path
                .file_name()
                .map_or_else(Default::default, |name| name.to_string_lossy());
            writeln!(out, "{name:<52}{:>8}{:>18}", shard.tensors, shard.bytes)?;
        }
    }
    Ok(out)
}

/// A number in thousands, millions or billions: `14.3 M`.
fn short(number: u64) -> String {
    let value = number as f64;
    match number {
        0..1_000 => format!("{number} "),
        1_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.1} G", value / 1e9),
    }
}
