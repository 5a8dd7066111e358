//! From source tensors to GGUF tensors: names, shapes, types, and the slices of the source each is made of.
//! It must not read weights.

use std::collections::{BTreeMap, BTreeSet};

use gguf::{Dtype, TensorSpec};

use crate::config::Config;
use crate::error::Error;
use crate::safetensors::Tensor;
use crate::stream::{Output, Slice};

/// The outputs of a model, in the order they are written.
///
/// # Errors
/// When a tensor is missing, has another shape than config.json says, or is not known.
pub(crate) fn outputs(
    config: &Config,
    tensors: &BTreeMap<String, Tensor>,
    target: Dtype,
) -> Result<Vec<Output>, Error> {
    let mut recipe = Recipe {
        tensors,
        target,
        used: BTreeSet::new(),
        outputs: Vec::new(),
    };
    let hidden = u64::from(config.hidden_size);
    let vocab = u64::from(config.vocab_size);
    recipe.matrix(
        "token_embd.weight",
        "model.embed_tokens.weight",
        [vocab, hidden],
    )?;
    for layer in 0..config.num_hidden_layers {
        attention(&mut recipe, config, layer)?;
        feed_forward(&mut recipe, config, layer)?;
    }
    recipe.vector("output_norm.weight", "model.norm.weight", hidden)?;
    if !config.tie_word_embeddings {
        recipe.matrix("output.weight", "lm_head.weight", [vocab, hidden])?;
    }
    match tensors
        .keys()
        .find(|name| !recipe.used.contains(name.as_str()) && !ignored(config, name))
    {
        Some(unknown) => Err(Error::UnknownTensor(unknown.clone())),
        None => Ok(recipe.outputs),
    }
}

/// Buffers that hold no weights, and layers beyond the last (multi-token prediction, which inference does not use).
fn ignored(config: &Config, name: &str) -> bool {
    let layer = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    name.ends_with(".rotary_emb.inv_freq")
        || layer.is_some_and(|layer| layer >= config.num_hidden_layers)
}

fn attention(recipe: &mut Recipe<'_>, config: &Config, layer: u32) -> Result<(), Error> {
    let source = |name: &str| format!("model.layers.{layer}.self_attn.{name}.weight");
    let output = |name: &str| format!("blk.{layer}.{name}.weight");
    let [hidden, heads, kv, nope, rope, v] = [
        config.hidden_size,
        config.num_attention_heads,
        config.kv_lora_rank,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
    ]
    .map(u64::from);
    let queries = heads * (nope + rope);

    let norm = format!("model.layers.{layer}.input_layernorm.weight");
    recipe.vector(&output("attn_norm"), &norm, hidden)?;
    match config.q_lora_rank.map(u64::from) {
        Some(rank) => {
            recipe.matrix(&output("attn_q_a"), &source("q_a_proj"), [rank, hidden])?;
            recipe.vector(&output("attn_q_a_norm"), &source("q_a_layernorm"), rank)?;
            recipe.matrix(&output("attn_q_b"), &source("q_b_proj"), [queries, rank])?;
        }
        None => recipe.matrix(&output("attn_q"), &source("q_proj"), [queries, hidden])?,
    }
    recipe.matrix(
        &output("attn_kv_a_mqa"),
        &source("kv_a_proj_with_mqa"),
        [kv + rope, hidden],
    )?;
    recipe.vector(&output("attn_kv_a_norm"), &source("kv_a_layernorm"), kv)?;

    // kv_b holds, per head, the rows of the key's position-free part and then those of the value. Absorbed attention
    // multiplies queries by the transpose of the former, so it is stored transposed.
    let kv_b = recipe.slice(&source("kv_b_proj"), &[heads * (nope + v), kv])?;
    let head = |at: u64, rows: u64, transpose: bool| {
        (0..heads)
            .map(|h| kv_b.rows(h * (nope + v) + at, rows, transpose))
            .collect()
    };
    recipe.push(&output("attn_k_b"), &[nope, kv, heads], head(0, nope, true));
    recipe.push(&output("attn_v_b"), &[kv, v, heads], head(nope, v, false));
    recipe.matrix(
        &output("attn_output"),
        &source("o_proj"),
        [hidden, heads * v],
    )
}

fn feed_forward(recipe: &mut Recipe<'_>, config: &Config, layer: u32) -> Result<(), Error> {
    let source = |name: &str| format!("model.layers.{layer}.mlp.{name}");
    let output = |name: &str| format!("blk.{layer}.{name}");
    let hidden = u64::from(config.hidden_size);
    let expert = u64::from(config.moe_intermediate_size);
    let experts = u64::from(config.n_routed_experts);
    let projections = |width: u64| {
        [
            ("gate", [width, hidden]),
            ("up", [width, hidden]),
            ("down", [hidden, width]),
        ]
    };

    let norm = format!("model.layers.{layer}.post_attention_layernorm.weight");
    recipe.vector(&output("ffn_norm.weight"), &norm, hidden)?;
    if layer < config.first_k_dense_replace {
        for (name, shape) in projections(config.intermediate_size.into()) {
            let source = source(&format!("{name}_proj.weight"));
            recipe.matrix(&output(&format!("ffn_{name}.weight")), &source, shape)?;
        }
        return Ok(());
    }
    recipe.matrix(
        &output("ffn_gate_inp.weight"),
        &source("gate.weight"),
        [experts, hidden],
    )?;
    let bias = source("gate.e_score_correction_bias");
    if recipe.tensors.contains_key(&bias) {
        recipe.vector(&output("exp_probs_b.bias"), &bias, experts)?;
    }
    for (name, [rows, columns]) in projections(expert) {
        let slices: Result<Vec<Slice>, Error> = (0..experts)
            .map(|e| {
                recipe.slice(
                    &source(&format!("experts.{e}.{name}_proj.weight")),
                    &[rows, columns],
                )
            })
            .collect();
        recipe.push(
            &output(&format!("ffn_{name}_exps.weight")),
            &[columns, rows, experts],
            slices?,
        );
    }
    if config.n_shared_experts > 0 {
        // Several shared experts are stored fused, as one wide one.
        for (name, shape) in projections(expert * u64::from(config.n_shared_experts)) {
            let source = source(&format!("shared_experts.{name}_proj.weight"));
            recipe.matrix(&output(&format!("ffn_{name}_shexp.weight")), &source, shape)?;
        }
    }
    Ok(())
}

struct Recipe<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    target: Dtype,
    used: BTreeSet<String>,
    outputs: Vec<Output>,
}

impl Recipe<'_> {
    /// A source tensor, checked to have this shape (outermost first).
    fn slice(&mut self, name: &str, shape: &[u64]) -> Result<Slice, Error> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor(name.to_owned()))?;
        if tensor.shape != shape {
            return Err(Error::Shape {
                tensor: name.to_owned(),
                found: tensor.shape.clone(),
                wanted: shape.to_vec(),
            });
        }
        let dtype = tensor.float_type().ok_or_else(|| Error::SourceType {
            tensor: name.to_owned(),
            dtype: tensor.dtype.clone(),
        })?;
        self.used.insert(name.to_owned());
        let (rows, columns) = match shape {
            [columns] => (1, *columns),
            [rows, columns, ..] => (*rows, *columns),
            [] => (1, 1),
        };
        Ok(Slice::new(
            &tensor.path,
            tensor.offset,
            dtype,
            rows,
            columns,
        ))
    }

    fn push(&mut self, name: &str, dims: &[u64], slices: Vec<Slice>) {
        self.outputs.push(Output {
            spec: TensorSpec {
                name: name.to_owned(),
                dims: dims.to_vec(),
                dtype: storage_type(name, dims, self.target),
            },
            slices,
        });
    }

    fn vector(&mut self, name: &str, source: &str, length: u64) -> Result<(), Error> {
        let slice = self.slice(source, &[length])?;
        self.push(name, &[length], vec![slice]);
        Ok(())
    }

    fn matrix(&mut self, name: &str, source: &str, [rows, columns]: [u64; 2]) -> Result<(), Error> {
        let slice = self.slice(source, &[rows, columns])?;
        self.push(name, &[columns, rows], vec![slice]);
        Ok(())
    }
}

/// The type a tensor is stored in: vectors (norms, biases) and the router stay F32, since rounding them moves the
/// choice of experts; rows that are not whole blocks of the target become F16.
pub(crate) fn storage_type(name: &str, dims: &[u64], target: Dtype) -> Dtype {
    if dims.len() < 2 || name.ends_with("ffn_gate_inp.weight") {
        Dtype::F32
    } else if !dims[0].is_multiple_of(target.block_values() as u64) {
        Dtype::F16
    } else {
        target
    }
}
