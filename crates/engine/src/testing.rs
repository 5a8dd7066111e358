//! Where tests find models and reference logits, and how they make odd models from sound ones.
//! Compiled for tests only.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

pub(crate) mod synthetic;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use gguf::{Dtype, Metadata, TensorSpec, Value, Writer, shard};
use sizing::CacheType;

use crate::{
    ActivationType, Error, Options, Progress,
    config::{Config, RopeConfig},
    eval::Reference,
    load::{Loaded, load},
};

/// Random valid rows of any type, as the tests of the kernels make them.
#[path = "../../quant/tests/common/mod.rs"]
pub(crate) mod blocks;

/// The directory of the model in every quant llama.cpp writes, when the environment names it. What the
/// repository's own tests need comes from [`restored`] and [`kimi_tiny`].
pub(crate) fn fixtures() -> Option<PathBuf> {
    let dir = env::var_os("KIMI_FIXTURES").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: KIMI_FIXTURES does not name the directory that holds kimi-tiny-gguf/");
    }
    dir
}

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

/// The repository's model in a quant, `Q4_K_M` or `Q8_0`.
pub(crate) fn kimi_tiny(quant: &str) -> PathBuf {
    testdata()
        .join("hub/kimi-operator/Kimi-Tiny-GGUF")
        .join(quant)
}

/// The model before it was quantized, in BF16, written to `dir`.
pub(crate) fn restored(dir: &Path) -> PathBuf {
    let out = dir.join("Kimi-Tiny-BF16.gguf");
    let residual = testdata().join("Kimi-Tiny-BF16.residual");
    convert::residual::restore(&kimi_tiny("Q8_0"), &residual, &out).unwrap();
    out
}

/// Logits of some texts by transformers, in F32 from the BF16 weights.
pub(crate) fn references() -> Vec<Reference> {
    serde_json::from_str(&fs::read_to_string(testdata().join("logits.json")).unwrap()).unwrap()
}

/// Options of tests: a KV cache as exact as the references.
pub(crate) fn options(path: &Path, threads: usize) -> Options {
    Options {
        threads: Some(threads),
        cache_type: CacheType::F32,
        // Judged against references that round nothing but weights.
        activations: ActivationType::F32,
        ..Options::new(path)
    }
}

pub(crate) fn try_load(path: &Path, threads: usize) -> Result<Loaded, Error> {
    load(&options(path, threads), &Progress::new())
}

pub(crate) fn loaded(path: &Path, threads: usize) -> Loaded {
    try_load(path, threads).unwrap()
}

/// Sizes of a model that exists only as such.
pub(crate) fn small_config() -> Config {
    Config {
        layers: 2,
        dense_layers: 2,
        hidden: 64,
        heads: 10,
        q_lora: None,
        kv_lora: 64,
        nope: 32,
        rope_dim: 32,
        v_head: 32,
        dense_ff: 64,
        experts: None,
        rms_eps: 1e-6,
        rope: RopeConfig {
            base: 10_000.0,
            yarn: None,
        },
        context: 1 << 17,
    }
}

/// Values between -1 and 1 that look random and are the same everywhere.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        // xorshift32 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2f32.powi(31) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// As it is served: with activations of eight bits.
pub(crate) fn served(path: &Path, threads: usize) -> Loaded {
    let options = Options {
        threads: Some(threads),
        ..Options::new(path)
    };
    load(&options, &Progress::new()).unwrap()
}

/// A whole model in memory, to be changed and written as one file.
pub(crate) struct Draft {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Draft {
    pub(crate) fn read(path: &Path) -> Self {
        let mut draft = Self {
            metadata: Metadata::new(),
            tensors: Vec::new(),
        };
        for path in shard::find_shards(path).unwrap() {
            let header = gguf::open_header(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            for tensor in &header.tensors {
                let start = (header.data_offset + tensor.offset) as usize;
                let data = bytes[start..start + tensor.bytes as usize].to_vec();
                let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
                draft.tensors.push((
                    TensorSpec {
                        name,
                        dims,
                        dtype: tensor.dtype,
                    },
                    data,
                ));
            }
            for (key, value) in header.metadata.iter() {
                if !key.starts_with("split.") && draft.metadata.get(key).is_none() {
                    draft.metadata.set(key, value.clone());
                }
            }
        }
        draft
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut (TensorSpec, Vec<u8>) {
        self.tensors
            .iter_mut()
            .find(|(spec, _)| spec.name == name)
            .unwrap()
    }

    pub(crate) fn remove(&mut self, name: &str) -> (TensorSpec, Vec<u8>) {
        let at = self
            .tensors
            .iter()
            .position(|(spec, _)| spec.name == name)
            .unwrap();
        self.tensors.remove(at)
    }

    /// A tensor's values.
    pub(crate) fn floats(&mut self, name: &str) -> Vec<f32> {
        let (spec, bytes) = self.tensor(name);
        let row = spec.dims[0] as usize;
        let row_bytes = spec.dtype.row_bytes(row).unwrap();
        let kernels = quant::kernels(spec.dtype).unwrap();
        let mut values = vec![0.0; bytes.len() / row_bytes * row];
        for (bytes, out) in bytes.chunks(row_bytes).zip(values.chunks_mut(row)) {
            (kernels.dequantize)(bytes, out);
        }
        values
    }

    pub(crate) fn add(&mut self, name: &str, dims: &[u64], dtype: Dtype, bytes: Vec<u8>) {
        let spec = TensorSpec {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype,
        };
        self.tensors.push((spec, bytes));
    }

    /// Adds what older files have in place of a layer's k_b and v_b: per head, the keys' rows (k_b turned over) and the
    /// values'.
    pub(crate) fn add_kv_b(&mut self, layer: usize, heads: usize) {
        let [keys, values] = ["k_b", "v_b"].map(|name| format!("blk.{layer}.attn_{name}.weight"));
        let nope = self.tensor(&keys).0.dims[0] as usize;
        let kv = self.tensor(&values).0.dims[0] as usize;
        let (keys, values) = (self.floats(&keys), self.floats(&values));
        let mut both = Vec::new();
        for (keys, values) in keys
            .chunks(kv * nope)
            .zip(values.chunks(values.len() / heads))
        {
            for at in 0..nope {
                both.extend(keys.iter().skip(at).step_by(nope));
            }
            both.extend_from_slice(values);
        }
        let bytes = quant::quantize(Dtype::F32, &both).unwrap();
        let name = format!("blk.{layer}.attn_kv_b.weight");
        let rows = both.len() / kv;
        self.add(&name, &[kv as u64, rows as u64], Dtype::F32, bytes);
    }

    pub(crate) fn write(&self, path: &Path) {
        write_file(path, &self.metadata, &self.tensors);
    }

    /// As a set of `count` files in `dir`, of which some have no tensors if there are more files than tensors.
    pub(crate) fn write_shards(&self, dir: &Path, prefix: &str, count: u32) {
        let all = self.tensors.len();
        let first = |no: u32| all * no as usize / count as usize;
        for no in 0..count {
            let mut metadata = match no {
                0 => self.metadata.clone(),
                _ => Metadata::new(),
            };
            for (key, value) in [
                (shard::NO_KEY, Value::U16(no as u16)),
                (shard::COUNT_KEY, Value::U16(count as u16)),
                (shard::TENSORS_KEY, Value::I32(all as i32)),
            ] {
                metadata.set(key, value);
            }
            let path = dir.join(shard::name(prefix, no + 1, count));
            write_file(&path, &metadata, &self.tensors[first(no)..first(no + 1)]);
        }
    }
}

fn write_file(path: &Path, metadata: &Metadata, tensors: &[(TensorSpec, Vec<u8>)]) {
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new(Vec::new(), metadata, &specs).unwrap();
    for (spec, bytes) in tensors {
        writer.append(&spec.name, bytes).unwrap();
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
}
