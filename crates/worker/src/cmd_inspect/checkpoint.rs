//! The summary of a Hugging Face checkpoint: safetensors and their config.json. It must not know how
//! it is printed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context;
use convert::safetensors;
use serde_json::Value;
use sizing::inspect::class_of_checkpoint;

use super::{ShardRow, Summary, Tensor, bits_per_weight, classes, main_type};

/// Larger than any config.json.
const MAX_CONFIG: u64 = 1 << 20;

/// `path` is the directory or one of its files.
pub(super) fn summary(path: &Path) -> anyhow::Result<Summary> {
    let dir = if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(Path::new("."))
    };
    let config = config(dir)?;
    // Kimi-VL and K2.5 keep the text model's sizes in a part of their own.
    let text = config.get("text_config").unwrap_or(&config);
    let tensors = safetensors::read_dir(dir)?;
    let mut shards: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for tensor in tensors.values() {
        *shards.entry(tensor.path.clone()).or_default() += 1;
    }
    let shards = shards
        .into_iter()
        .map(|(path, tensors)| {
            let bytes = fs::metadata(&path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .len();
            Ok(ShardRow {
                path,
                tensors,
                bytes,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let classes = classes(tensors.iter().map(|(name, tensor)| Tensor {
        class: class_of_checkpoint(name),
        dtype: dtype(name, &tensor.dtype),
        parameters: parameters(name, &tensor.shape),
        bytes: tensor.bytes,
    }));
    let words = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    Ok(Summary {
        name: dir
            .canonicalize()
            .ok()
            .and_then(|dir| {
                dir.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            })
            .unwrap_or_default(),
        architecture: words(config.get("architectures").and_then(|names| names.get(0)))
            .or_else(|| words(config.get("model_type")))
            .unwrap_or("unknown".to_owned()),
        file_type: main_type(&classes),
        context_length: text.get("max_position_embeddings").and_then(Value::as_u64),
        parameters: classes.iter().map(|row| row.parameters).sum(),
        bytes: shards.iter().map(|shard| shard.bytes).sum(),
        bits_per_weight: bits_per_weight(&classes),
        serving: Vec::new(),
        not_servable: Some(
            "`kimi convert` makes a GGUF of a checkpoint, which can be served".to_owned(),
        ),
        metadata: flat(&config),
        shards,
        classes,
    })
}

fn config(dir: &Path) -> anyhow::Result<Value> {
    let path = dir.join("config.json");
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    file.take(MAX_CONFIG)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Four-bit weights of compressed-tensors lie eight to an integer.
const PACKED: &str = ".weight_packed";

fn dtype(name: &str, dtype: &str) -> String {
    if name.ends_with(PACKED) {
        "INT4".to_owned()
    } else {
        dtype.to_owned()
    }
}

/// Weights in a tensor; scales and shapes that belong to quantized weights are none.
fn parameters(name: &str, shape: &[u64]) -> u64 {
    let values = shape.iter().fold(1u64, |all, dim| all.saturating_mul(*dim));
    let beside = ["_scale", "_scale_inv", "_shape", "_zero_point"];
    if name.ends_with(PACKED) {
        values.saturating_mul(8)
    } else if beside.iter().any(|end| name.ends_with(end)) {
        0
    } else {
        values
    }
}

/// Nested objects as dotted keys; of an array, its length.
fn flat(config: &Value) -> BTreeMap<String, Value> {
    fn add(prefix: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    add(&format!("{prefix}{dot}{key}"), value, out);
                }
            }
            Value::Array(values) => {
                out.insert(prefix.to_owned(), format!("{} values", values.len()).into());
            }
            plain => {
                out.insert(prefix.to_owned(), plain.clone());
            }
        }
    }
    let mut out = BTreeMap::new();
    add("", config, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_count_and_their_scales_do_not() {
        let expert = "model.layers.1.mlp.experts.0.up_proj";
        let of = |end: &str, shape: &[u64]| parameters(&format!("{expert}{end}"), shape);
        assert_eq!(of(".weight_packed", &[2048, 896]), 2048 * 7168);
        assert_eq!(of(".weight_scale", &[2048, 224]), 0);
        assert_eq!(of(".weight_shape", &[2]), 0);
        assert_eq!(of(".weight", &[4, 8]), 32);
        assert_eq!(dtype(&format!("{expert}.weight_packed"), "I32"), "INT4");
    }

    #[test]
    fn nested_keys_are_dotted() {
        let config = serde_json::json!({"a": {"b": 1, "c": [1, 2]}, "d": "e"});
        let keys: Vec<String> = flat(&config)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(keys, ["a.b=1", "a.c=\"2 values\"", "d=\"e\""]);
    }
}
