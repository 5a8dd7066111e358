//! The files of the corpus that are made by our own writer: a tensor of every type, and a tokenizer. Written under
//! `UPDATE_GOLDEN=1`, compared otherwise.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path};

use gguf::{Array, Dtype, Metadata, TensorSpec, Value, Writer};

fn ensure(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus/header")
        .join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let found = fs::read(&path).unwrap_or_default();
    assert!(
        found == bytes,
        "corpus/header/{name} is out of date: make gen"
    );
}

fn file(metadata: &Metadata, specs: &[TensorSpec]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), metadata, specs).unwrap();
    for spec in specs {
        let bytes = spec.dtype.tensor_bytes(&spec.dims).unwrap();
        writer.append(&spec.name, &vec![7; bytes as usize]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn every_type_of_value_and_tensor() {
    let mut metadata = Metadata::new();
    metadata.set("general.name", Value::String("Kimi".into()));
    metadata.set("split.count", Value::U16(1));
    metadata.set("scale", Value::F32(2.827));
    metadata.set("norm", Value::Bool(true));
    metadata.set("tokens", Value::Array(Array::String(vec!["a".into(); 64])));
    metadata.set("types", Value::Array(Array::I32(vec![1; 64])));
    let spec = |dtype: &Dtype| TensorSpec {
        name: format!("blk.0.{dtype}.weight"),
        dims: vec![dtype.block_values() as u64, 2],
        dtype: *dtype,
    };
    let specs: Vec<TensorSpec> = Dtype::ALL.iter().map(spec).collect();
    ensure("every-type", &file(&metadata, &specs));
}

#[test]
fn a_tokenizer() {
    let vocabulary = engine::tokenizer::Vocabulary::bytes(&["<|im_end|>", "[EOS]"]);
    let mut tokens = vocabulary.tokens;
    tokens.extend(["th", "the", "Ġthe"].map(String::from));
    let kind = |special: bool| if special { 3 } else { 1 };
    let mut types: Vec<i32> = vocabulary.special.into_iter().map(kind).collect();
    types.extend([1; 3]);
    let merges = ["t h", "th e", "Ġ the"].map(String::from).to_vec();
    let mut metadata = Metadata::new();
    for (key, value) in [
        ("model", Value::String("gpt2".into())),
        ("pre", Value::String("kimi-k2".into())),
        ("tokens", Value::Array(Array::String(tokens))),
        ("token_type", Value::Array(Array::I32(types))),
        ("merges", Value::Array(Array::String(merges))),
        ("eos_token_id", Value::U32(257)),
        ("add_bos_token", Value::Bool(false)),
    ] {
        metadata.set(&format!("tokenizer.ggml.{key}"), value);
    }
    ensure("tokenizer", &file(&metadata, &[]));
}
