//! Conversion of models to GGUF: Hugging Face safetensors of DeepSeek-V3-shaped models (Kimi-K2, Moonlight) or another
//! GGUF in, a `deepseek2` GGUF in mainline's layout out; and splitting into shards.
//! It must not know the network, the cluster or how a model is run.
//!
//! [`from_safetensors`] is the line config → tokenizer → recipe → stream. Everything streams: memory does not grow with
//! the model. Outputs appear under their name only when complete.

#![forbid(unsafe_code)]

mod config;
mod error;
mod recipe;
pub mod residual;
pub mod safetensors;
mod split;
mod stream;
mod tokenizer;

use std::path::Path;

use gguf::{Dtype, Header, Metadata, Value, shard};

pub use error::Error;
pub use split::split;
pub use stream::Progress;

use config::Config;
use stream::{Output, Slice};

/// Converts a Hugging Face model directory (config.json, tiktoken.model, tokenizer_config.json, *.safetensors) to one
/// GGUF file of type `target`.
///
/// Weights may be F32, F16 or BF16. Norms, biases and the router are stored as F32, rows that are not whole blocks of
/// `target` as F16.
///
/// # Errors
/// Names the file, field or tensor at fault; no output is left behind.
pub fn from_safetensors(
    dir: &Path,
    name: &str,
    target: Dtype,
    out: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let file_type = file_type(target)?;
    let config = Config::read(dir)?;
    let mut metadata = Metadata::new();
    metadata.set(
        "general.architecture",
        Value::String("deepseek2".to_owned()),
    );
    metadata.set("general.name", Value::String(name.to_owned()));
    config.write_metadata(&mut metadata);
    let ids = [config.bos_token_id, config.eos_token_id];
    tokenizer::write_metadata(dir, config.vocab_size, ids, &mut metadata)?;
    // Version 2 is the block layouts in use since 2023.
    metadata.set("general.quantization_version", Value::U32(2));
    metadata.set("general.file_type", Value::U32(file_type));

    let tensors = safetensors::read_dir(dir)?;
    let outputs = recipe::outputs(&config, &tensors, target)?;
    stream::write(out, &metadata, &outputs, progress)
}

/// Re-encodes a GGUF model (a file, or any shard of a set) to one file of type `target`, metadata kept.
///
/// From a quantized model this loses precision twice; it serves tests and small experiments.
///
/// # Errors
/// As [`from_safetensors`].
pub fn from_gguf(
    input: &Path,
    target: Dtype,
    out: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let file_type = file_type(target)?;
    let paths = shard::find_shards(input)?;
    let headers = paths
        .iter()
        .map(|path| gguf::open_header(path))
        .collect::<Result<Vec<_>, _>>()?;
    shard::check_set(&headers)?;
    let mut metadata = joined_metadata(&headers[0]);
    metadata.set("general.file_type", Value::U32(file_type));
    let mut outputs = Vec::new();
    for (path, header) in paths.iter().zip(&headers) {
        for tensor in &header.tensors {
            let offset = header.data_offset + tensor.offset;
            let dtype = recipe::storage_type(&tensor.name, &tensor.dims, target);
            outputs.push(Output {
                spec: gguf::TensorSpec {
                    name: tensor.name.clone(),
                    dims: tensor.dims.clone(),
                    dtype,
                },
                slices: vec![Slice::new(
                    path,
                    offset,
                    tensor.dtype,
                    tensor.rows(),
                    tensor.row_values(),
                )],
            });
        }
    }
    stream::write(out, &metadata, &outputs, progress)
}

/// A first shard's metadata for a single file of other types: without what says how it was split, and what guided a
/// quantization that no longer holds.
fn joined_metadata(first: &Header) -> Metadata {
    let kept = |key: &str| !key.starts_with("split.") && !key.starts_with("quantize.");
    let mut metadata = Metadata::new();
    for (key, value) in first.metadata.iter().filter(|(key, _)| kept(key)) {
        metadata.set(key, value.clone());
    }
    metadata
}

/// The `general.file_type` number of a model stored mainly as `target` (llama.cpp's `LLAMA_FTYPE_*`).
fn file_type(target: Dtype) -> Result<u32, Error> {
    let known = [
        (Dtype::F32, 0),
        (Dtype::F16, 1),
        (Dtype::Q4_0, 2),
        (Dtype::Q4_1, 3),
        (Dtype::Q8_0, 7),
        (Dtype::Q5_0, 8),
        (Dtype::Q5_1, 9),
        (Dtype::BF16, 32),
    ];
    let found = known.into_iter().find(|(dtype, _)| *dtype == target);
    found
        .map(|(_, number)| number)
        .ok_or(Error::TargetType(target))
}
