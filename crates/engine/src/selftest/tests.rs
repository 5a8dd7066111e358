//! The self-test passes sound files and fails each kind of damage done to a copy.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::testing::*;

/// Copies a model and overwrites parts of its tensors.
fn damaged(from: &Path, to: &Path, damage: impl Fn(&str, &mut [u8])) {
    fs::create_dir_all(to).unwrap();
    for path in gguf::shard::find_shards(from).unwrap() {
        let header = gguf::open_header(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for tensor in &header.tensors {
            let start = (header.data_offset + tensor.offset) as usize;
            damage(
                &tensor.name,
                &mut bytes[start..start + tensor.bytes as usize],
            );
        }
        fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

fn model() -> PathBuf {
    kimi_tiny("Q8_0")
}

fn check(damage: impl Fn(&str, &mut [u8])) -> Result<SelfTest, SelfTestError> {
    let dir = tempfile::tempdir().unwrap();
    damaged(&model(), dir.path(), damage);
    let result = run(&loaded(dir.path(), 2));
    eprintln!("{result:?}");
    result
}

#[test]
fn passes_sound_weights() {
    let result = check(|_, _| ()).unwrap();
    assert!(
        result.loss < result.chance * SHARE_OF_CHANCE * 0.9,
        "{result:?}"
    );
    assert!(result.answer.contains("God"), "{result:?}");
}

#[test]
fn fails_a_scale_that_is_no_number() {
    let result = check(|name, bytes| {
        if name == "blk.2.attn_output.weight" {
            // A block of Q8_0 begins with its scale, an f16.
            bytes[..2].copy_from_slice(&[0xff, 0x7f]);
        }
    });
    assert!(matches!(result, Err(SelfTestError::NotFinite { .. })));
}

#[test]
fn fails_a_shuffled_embedding() {
    let result = check(|name, bytes| {
        if name == "token_embd.weight" {
            // 4,096 rows; the stride is odd, so that this is a permutation.
            let row = bytes.len() / 4096;
            let rows = bytes.to_vec();
            for (at, out) in bytes.chunks_exact_mut(row).enumerate() {
                let from = (at * 1_237 + 1) % 4096;
                out.copy_from_slice(&rows[from * row..(from + 1) * row]);
            }
        }
    });
    assert!(matches!(result, Err(SelfTestError::Unlikely { .. })));
}

#[test]
fn fails_a_zeroed_router() {
    let result = check(|name, bytes| {
        if name == "blk.3.ffn_gate_inp.weight" {
            bytes.fill(0);
        }
    });
    assert!(matches!(
        result,
        Err(SelfTestError::Router {
            layer: 3,
            chosen: 4
        })
    ));
}
