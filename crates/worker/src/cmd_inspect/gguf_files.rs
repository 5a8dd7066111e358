//! The summary of a model in GGUF files. It must not know how it is printed.

use std::collections::BTreeMap;

use anyhow::Context;
use gguf::{Metadata, Value, shard};
use serde_json::json;
use sizing::{Facts, Identity, inspect::class_of};

use super::{InspectArgs, ShardRow, Summary, Tensor, bits_per_weight, classes, main_type, serving};

pub(super) fn summary(args: &InspectArgs) -> anyhow::Result<Summary> {
    let mut headers = Vec::new();
    let mut shards = Vec::new();
    for path in shard::find_shards(&args.path)? {
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

    let metadata = &headers.first().context("the model has no files")?.metadata;
    let architecture = metadata.get_str("general.architecture")?.to_owned();
    let tensors = headers.iter().flat_map(|header| &header.tensors);
    let classes = classes(tensors.map(|tensor| Tensor {
        class: class_of(&tensor.name),
        dtype: tensor.dtype.name().to_owned(),
        parameters: tensor.values(),
        bytes: tensor.bytes,
    }));
    let file_type = engine::file_type_name(metadata.opt_u32("general.file_type")?);
    let file_type = file_type.map_or_else(|| main_type(&classes), str::to_owned);
    let bytes = shards.iter().map(|shard| shard.bytes).sum();
    // No formula uses what tells one artifact from another.
    let identity = Identity {
        repo: "local/files".to_owned(),
        commit: "0".repeat(40),
        path: String::new(),
        quant: file_type.clone(),
        digest: "0".repeat(64),
        bytes,
    };
    let facts = Facts::from_headers(&headers, &identity);
    Ok(Summary {
        name: metadata
            .opt_str("general.name")?
            .unwrap_or("unnamed")
            .to_owned(),
        context_length: metadata.opt_u64(&format!("{architecture}.context_length"))?,
        parameters: classes.iter().map(|row| row.parameters).sum(),
        bits_per_weight: bits_per_weight(&classes),
        serving: facts
            .as_ref()
            .map(|facts| serving(facts, args))
            .unwrap_or_default(),
        // Another architecture can be looked at all the same.
        not_servable: facts.err().map(|error| error.to_string()),
        metadata: values(metadata),
        architecture,
        file_type,
        bytes,
        shards,
        classes,
    })
}

fn values(metadata: &Metadata) -> BTreeMap<String, serde_json::Value> {
    let value = |value: &Value| match value {
        Value::U8(value) => json!(value),
        Value::I8(value) => json!(value),
        Value::U16(value) => json!(value),
        Value::I16(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::F32(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Array(array) => json!(format!("{} values", array.len())),
        Value::U64(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::F64(value) => json!(value),
    };
    metadata
        .iter()
        .map(|(key, found)| (key.to_owned(), value(found)))
        .collect()
}
