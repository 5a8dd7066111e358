//! Golden: docs/tensor-types.md, the table of types with what is read, written and fast.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use gguf::Dtype;
use quant::{kernels, quantize};

/// Why a type of the table is not read, which every type that has no kernels needs.
fn reason(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Q8_1 | Dtype::Q8_K => "no: holds activations, never weights",
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::F64 => {
            "no: not a type of weights"
        }
        _ => "no: no known Kimi file has it",
    }
}

fn document() -> String {
    let mut text = String::from(
        "# Tensor types\n\n\
         Written by `crates/quant/tests/docs.rs` from the code. A file may mix types as it likes: by layer, between gate, up\n\
         and down, and, where experts have tensors of their own, by expert. *Decoded* values equal those of the `gguf` Python\n\
         package (ids below 133) or of ik_llama.cpp's own code (ids from 133 on) in every bit; the rows they are compared on\n\
         are in `crates/quant/tests/golden`. IQ6_K alone has no such single answer: its reference computes in floats, and the\n\
         last bit depends on whether its compiler fused multiplications with additions; here they are fused. *Encoded* are the\n\
         types that `kimi convert` can write.\n\n\
         ik_llama.cpp's row-interleaved types (ids from 202 on, `_R4` and `_R8`) are refused by name: use the file they were\n\
         made from.\n\n\
         | Type | Id | Values in a block | Bytes | Bits per value | Scale per row | Decoded | Encoded |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for dtype in Dtype::ALL.iter().copied() {
        let prefix = match dtype.row_prefix_bytes() {
            0 => "-".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        let decoded = match kernels(dtype) {
            Some(_) => "yes",
            None => reason(dtype),
        };
        let encoded = quantize(dtype, &[]).map_or("no", |_| "yes");
        writeln!(
            text,
            "| {dtype} | {} | {} | {} | {} | {prefix} | {decoded} | {encoded} |",
            dtype.id(),
            dtype.block_values(),
            dtype.block_bytes(),
            dtype.bits_per_value(),
        )
        .unwrap();
    }
    text
}

#[test]
fn golden_tensor_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tensor-types.md");
    let expected = document();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/tensor-types.md is stale: run `make gen`"
    );
}
