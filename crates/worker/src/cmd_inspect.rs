//! `kimi inspect`: what a local model is made of, and what it would take to serve it. Reads headers
//! only, so it answers at once for a model of any size. It must not load weights.

mod checkpoint;
mod gguf_files;
mod table;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sizing::{CacheType, Facts, Fits, Hardware, Input, Source, facts::Class};

use crate::model_args::Output;

/// Arguments of `kimi inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A .gguf file, any shard of a set, or a directory holding one model as GGUF or as safetensors.
    path: PathBuf,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Tokens of context to plan for [default: the model's own, at most 32768].
    #[arg(short, long, value_name = "TOKENS")]
    ctx_size: Option<u32>,
    /// How the KV cache to plan for is stored: f16, q8_0 or f32.
    #[arg(
        long,
        visible_alias = "cache-type-k",
        value_name = "TYPE",
        default_value_t
    )]
    cache_type: CacheType,
}

/// What is printed; the JSON has these names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    architecture: String,
    file_type: String,
    /// Tokens the model was made for; `None` where the files do not say.
    context_length: Option<u64>,
    /// Weights.
    parameters: u64,
    /// Bytes of all files, headers included.
    bytes: u64,
    /// Files, in order.
    shards: Vec<ShardRow>,
    bits_per_weight: Bits,
    classes: Vec<ClassRow>,
    /// What serving it takes on each hardware; empty for what cannot be served as it is.
    serving: Vec<ServingRow>,
    /// Why it cannot be served as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_servable: Option<String>,
    /// Keys and values of the files; of an array, its length.
    metadata: BTreeMap<String, serde_json::Value>,
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
    dtype: String,
    /// Tensors.
    count: u64,
    /// Weights in them.
    parameters: u64,
    bytes: u64,
}

/// What serving takes on one kind of hardware.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServingRow {
    hardware: &'static str,
    fits: Fits,
    vram_bytes: u64,
    ram_bytes: u64,
    /// Whole routed experts that fit in the VRAM that is left.
    gpu_experts: u64,
    context_length: u64,
    reason: String,
}

/// One tensor, whatever format it is in.
struct Tensor {
    class: Class,
    dtype: String,
    parameters: u64,
    bytes: u64,
}

/// Prints the summary.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let summary = if is_checkpoint(&args.path) {
        checkpoint::summary(&args.path)?
    } else {
        gguf_files::summary(args)?
    };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&summary)? + "\n",
        Output::Table => table::table(&summary)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether a path holds safetensors and no GGUF.
fn is_checkpoint(path: &Path) -> bool {
    let Ok(entries) = path.read_dir() else {
        return path.extension().is_some_and(|end| end == "safetensors");
    };
    let ends: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.path().extension().map(ToOwned::to_owned))
        .collect();
    let has = |wanted: &str| ends.iter().any(|end| end == wanted);
    has("safetensors") && !has("gguf")
}

fn classes(tensors: impl Iterator<Item = Tensor>) -> Vec<ClassRow> {
    let mut rows: BTreeMap<(Class, String), ClassRow> = BTreeMap::new();
    for tensor in tensors {
        let Tensor { class, dtype, .. } = tensor;
        let row = rows
            .entry((class, dtype))
            .or_insert_with_key(|key| ClassRow {
                class,
                dtype: key.1.clone(),
                count: 0,
                parameters: 0,
                bytes: 0,
            });
        row.count += 1;
        row.parameters = row.parameters.saturating_add(tensor.parameters);
        row.bytes = row.bytes.saturating_add(tensor.bytes);
    }
    rows.into_values().collect()
}

/// The type that most bytes are in.
fn main_type(classes: &[ClassRow]) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for row in classes {
        *bytes.entry(&row.dtype).or_default() += row.bytes;
    }
    let largest = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    largest.map_or("unknown", |(dtype, _)| dtype).to_owned()
}

fn bits_per_weight(classes: &[ClassRow]) -> Bits {
    let bits = |of: fn(Class) -> bool| {
        let rows = || classes.iter().filter(|row| of(row.class));
        let weights: u64 = rows().map(|row| row.parameters).sum();
        let bytes: u64 = rows().map(|row| row.bytes).sum();
        (weights > 0).then(|| (bytes as f64 * 8.0 / weights as f64 * 1000.0).round() / 1000.0)
    };
    Bits {
        overall: bits(|_| true),
        experts: bits(|class| class == Class::Expert),
        other: bits(|class| class != Class::Expert),
    }
}

/// A plan for each hardware of the table, by the formulae of `kimi plan`.
fn serving(facts: &Facts, args: &InspectArgs) -> Vec<ServingRow> {
    let plan = |hardware: &'static Hardware| {
        sizing::plan(&Input {
            context: args.ctx_size.map(u64::from),
            cache_type: args.cache_type,
            ..Input::new(Source::Exact(facts), hardware)
        })
    };
    Hardware::all()
        .iter()
        .map(|hardware| {
            let plan = plan(hardware);
            ServingRow {
                hardware: hardware.name,
                fits: plan.fits,
                vram_bytes: plan.vram_bytes,
                ram_bytes: plan.ram_bytes,
                gpu_experts: plan.gpu_experts,
                context_length: plan.context,
                reason: plan.reason,
            }
        })
        .collect()
}
