//! Files in every layout and mix of types that publishers write, made from the repository's model or from random blocks,
//! against the same weights in the ordinary layout.

use super::*;
use crate::testing::blocks::{Random, random_row};

/// Replaces keys of the metadata, or drops them.
fn rewrite(draft: &mut Draft, keep: impl Fn(&str) -> bool, set: &[(&str, u32)]) {
    let mut metadata = gguf::Metadata::new();
    for (key, value) in draft.metadata.iter().filter(|(key, _)| keep(key)) {
        metadata.set(key, value.clone());
    }
    for (key, value) in set {
        metadata.set(&format!("deepseek2.{key}"), Value::U32(*value));
    }
    draft.metadata = metadata;
}

/// The metadata of files from before multi-head latent attention was absorbed.
fn legacy_metadata(draft: &mut Draft) {
    let sizes = [
        ("attention.head_count_kv", 4),
        ("attention.key_length", 96),
        ("attention.value_length", 64),
    ];
    rewrite(draft, |key| !key.ends_with("_mla"), &sizes);
}

#[test]
fn keys_and_values_together() {
    let difference = compare(|draft| {
        legacy_metadata(draft);
        for layer in 0..4 {
            draft.add_kv_b(layer, 4);
            draft.remove(&format!("blk.{layer}.attn_k_b.weight"));
            draft.remove(&format!("blk.{layer}.attn_v_b.weight"));
        }
    });
    assert!(difference < 2e-3, "{difference}");
}

/// As ik_llama.cpp's converter writes them: legacy sizes and kv_b, and k_b and v_b beside it with heads and rows as one
/// dimension.
#[test]
fn keys_and_values_of_all_heads_in_two_dimensions() {
    let difference = compare(|draft| {
        legacy_metadata(draft);
        for layer in 0..4 {
            draft.add_kv_b(layer, 4);
            let keys = &mut draft.tensor(&format!("blk.{layer}.attn_k_b.weight")).0;
            assert_eq!(keys.dims, [64, 256, 4]);
            keys.dims = vec![64, 1024];
            let values = &mut draft.tensor(&format!("blk.{layer}.attn_v_b.weight")).0;
            assert_eq!(values.dims, [256, 64, 4]);
            values.dims = vec![256, 256];
        }
    });
    assert_eq!(difference, 0.0);
}

#[test]
fn gate_and_up_fused() {
    let difference = compare(|draft| {
        for layer in 1..4 {
            let (gate, gates) = draft.remove(&format!("blk.{layer}.ffn_gate_exps.weight"));
            let (_, ups) = draft.remove(&format!("blk.{layer}.ffn_up_exps.weight"));
            let expert = gates.len() / 16;
            let fused = gates.chunks(expert).zip(ups.chunks(expert));
            let bytes = fused.flat_map(|(gate, up)| [gate, up].concat()).collect();
            let name = format!("blk.{layer}.ffn_gate_up_exps.weight");
            draft.add(&name, &[256, 512, 16], gate.dtype, bytes);
        }
    });
    assert_eq!(difference, 0.0);
}

/// Gives each expert tensors of its own; `dtype` picks the type of an expert's down matrix.
fn part_experts(draft: &mut Draft, dtype: impl Fn(usize) -> Dtype) {
    for layer in 1..4 {
        for matrix in ["ffn_gate", "ffn_up", "ffn_down"] {
            let joined = format!("blk.{layer}.{matrix}_exps.weight");
            let values = draft.floats(&joined);
            let (spec, bytes) = draft.remove(&joined);
            let experts = bytes
                .chunks(bytes.len() / 16)
                .zip(values.chunks(values.len() / 16));
            for (expert, (bytes, values)) in experts.enumerate() {
                let name = format!("blk.{layer}.{matrix}.{expert}.weight");
                let dtype = if matrix == "ffn_down" {
                    dtype(expert)
                } else {
                    spec.dtype
                };
                let bytes = if dtype == spec.dtype {
                    bytes.to_vec()
                } else {
                    quant::quantize(dtype, values).unwrap()
                };
                draft.add(&name, &spec.dims[..2], dtype, bytes);
            }
        }
    }
}

#[test]
fn a_tensor_for_each_expert() {
    let difference = compare(|draft| part_experts(draft, |_| Dtype::Q8_0));
    assert_eq!(difference, 0.0);
}

#[test]
fn experts_of_a_layer_in_different_types() {
    // F32 holds what Q8_0 does; only the order of sums differs.
    let types = [Dtype::Q8_0, Dtype::F32];
    let difference = compare(|draft| part_experts(draft, |expert| types[expert % 2]));
    assert!(difference < 2e-3, "{difference}");
}

#[test]
fn an_expert_that_is_missing_is_named() {
    let (reason, words) = refused(|draft| {
        part_experts(draft, |_| Dtype::Q8_0);
        draft.remove("blk.2.ffn_up.11.weight");
    });
    assert_eq!(reason, "LoadFailed");
    assert!(words.contains("'blk.2.ffn_up.11.weight'"), "{words}");
}

/// Sets with a tensor per file are published (Thireus: 1,097 files). A process may have as few as 1,024 files open.
#[test]
fn a_thousand_and_two_hundred_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut draft = Draft::read(&kimi_tiny("Q8_0"));
    part_experts(&mut draft, |_| Dtype::Q8_0);
    draft.write_shards(dir.path(), "Kimi-Tiny-Q8_0", 1200);
    let ids = &references()[1].ids;
    let sound = logits(&loaded(&kimi_tiny("Q8_0"), 2), ids, ids.len());
    let apart = loaded(dir.path(), 2);
    assert_eq!(worst(&sound, &logits(&apart, ids, ids.len())), 0.0);

    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    assert_eq!(open.filter(|path| path.starts_with(dir.path())).count(), 0);
}

/// A publisher's mix of types. Where two or three are given, layers (of attention: matrices) take them in turn.
struct Mix {
    name: &'static str,
    embedding: Dtype,
    output: Dtype,
    attention: [Dtype; 3],
    shared: Dtype,
    gate: [Dtype; 2],
    up: [Dtype; 2],
    down: [Dtype; 2],
}

use Dtype::*;

/// The quants of Unsloth's Kimi-K2-Instruct with the types that were found in them or their like (UD-TQ1_0 has no
/// TQ1_0), and mixes in the manner of ubergarm's of the ik fork's types.
#[rustfmt::skip]
const MIXES: [Mix; 8] = [
    Mix { name: "UD-TQ1_0", embedding: Q4_K, output: Q6_K, attention: [IQ4_XS, Q4_K, Q5_K], shared: Q4_K,
          gate: [IQ1_S, IQ1_S], up: [IQ1_S, IQ1_S], down: [IQ1_M, IQ2_XXS] },
    Mix { name: "UD-IQ1_S", embedding: Q4_K, output: Q6_K, attention: [IQ4_XS, Q5_K, Q6_K], shared: IQ4_XS,
          gate: [IQ1_M, IQ1_S], up: [IQ1_M, IQ1_S], down: [IQ2_XXS, IQ2_XS] },
    Mix { name: "UD-Q2_K_XL", embedding: Q4_K, output: Q6_K, attention: [Q4_K, Q5_K, Q6_K], shared: Q5_K,
          gate: [Q2_K, Q3_K], up: [Q2_K, Q2_K], down: [Q3_K, Q4_K] },
    Mix { name: "UD-IQ3_XXS", embedding: Q4_K, output: Q6_K, attention: [Q4_K, IQ4_XS, Q5_K], shared: IQ4_XS,
          gate: [IQ3_XXS, IQ3_S], up: [IQ3_S, IQ2_S], down: [IQ4_XS, IQ3_XXS] },
    Mix { name: "UD-Q4_K_XL", embedding: Q4_K, output: Q6_K, attention: [Q4_K, Q8_0, Q6_K], shared: Q6_K,
          gate: [Q4_K, Q4_K], up: [Q4_K, Q5_K], down: [Q6_K, Q4_K] },
    Mix { name: "UD-Q5_K_XL", embedding: Q5_K, output: Q8_0, attention: [Q5_K, Q8_0, F16], shared: Q8_0,
          gate: [Q5_K, Q6_K], up: [Q5_K, Q5_K], down: [Q6_K, Q8_0] },
    Mix { name: "IQ2_KL", embedding: IQ4_K, output: IQ6_K, attention: [IQ5_KS, IQ5_K, IQ4_KSS], shared: IQ4_KS,
          gate: [IQ2_KL, IQ2_KS], up: [IQ2_K, IQ2_KL], down: [IQ3_KS, IQ3_K] },
    Mix { name: "smol-IQ1_KT", embedding: IQ4_K, output: IQ6_K, attention: [IQ4_KT, IQ4_KS, Q6_K], shared: IQ4_KT,
          gate: [IQ1_KT, IQ2_KT], up: [IQ1_KT, IQ1_KT], down: [IQ2_KT, IQ3_KT] },
];

impl Mix {
    /// The type of a tensor, `None` for those that stay as they are: norms, router, biases.
    fn dtype(&self, name: &str, dims: &[u64]) -> Option<Dtype> {
        let (layer, short) = match name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((layer, short)) => (layer.parse::<usize>().unwrap(), short),
            None => (0, name),
        };
        let attention = ["attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_output"];
        Some(match short.strip_suffix(".weight")? {
            "token_embd" => self.embedding,
            "output" => self.output,
            "ffn_gate_exps" => self.gate[layer % 2],
            "ffn_up_exps" => self.up[layer % 2],
            "ffn_down_exps" => self.down[layer % 2],
            // Rows of 64 values, as Kimi-K2's of 128, fit the types of 32.
            "attn_k_b" => Q8_0,
            "attn_v_b" => {
                if self.embedding == IQ4_K {
                    Q6_0
                } else {
                    IQ4_NL
                }
            }
            stem => match attention.iter().position(|name| *name == stem) {
                Some(at) => self.attention[(layer + at) % 3],
                None if dims.len() > 1 && stem != "ffn_gate_inp" => self.shared,
                None => return None,
            },
        })
    }

    /// The model with three layers of random weights in these types.
    fn draft(&self) -> Draft {
        let mut draft = Draft::read(&kimi_tiny("Q8_0"));
        draft
            .tensors
            .retain(|(spec, _)| !spec.name.starts_with("blk.3."));
        rewrite(&mut draft, |_| true, &[("block_count", 3)]);
        let mut random = Random(5);
        for (spec, bytes) in &mut draft.tensors {
            let Some(dtype) = self.dtype(&spec.name, &spec.dims) else {
                continue;
            };
            let row = usize::try_from(spec.dims[0]).unwrap();
            let rows = usize::try_from(spec.dims[1..].iter().product::<u64>()).unwrap();
            // A prime number of different rows, so that no two experts or heads are equal.
            let different: Vec<Vec<u8>> = (0..97)
                .map(|_| random_row(dtype, row, 0.25, &mut random))
                .collect();
            *bytes = different
                .iter()
                .cycle()
                .take(rows)
                .flatten()
                .copied()
                .collect();
            spec.dtype = dtype;
        }
        draft
    }
}

/// Each mix gives the logits that its values give as F32, so every type is read and multiplied as it should be wherever
/// it stands.
#[test]
fn mixes_of_types_by_layer_and_matrix() {
    for mix in &MIXES {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join(mix.name);
        fs::create_dir(&set).unwrap();
        mix.draft()
            .write_shards(&set, &format!("Kimi-K2-Instruct-{}", mix.name), 3);
        let wide = dir.path().join("wide.gguf");
        convert::from_gguf(&set, F32, &wide, &mut |_, _, _| ()).unwrap();

        let ids = &references()[1].ids[..24];
        let [found, expected] = [&set, &wide].map(|path| logits(&loaded(path, 2), ids, ids.len()));
        let largest = expected
            .iter()
            .fold(0.0f32, |max, logit| max.max(logit.abs()));
        assert!(largest.is_finite() && largest > 0.0, "{}", mix.name);
        let difference = worst(&found, &expected) / largest;
        eprintln!("{}: {difference:e} of {largest}", mix.name);
        assert!(difference < 1e-3, "{}: {difference:e}", mix.name);
    }
}
