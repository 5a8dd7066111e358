//! The committed residual gives back the test model's BF16 weights, bit for bit; a wrong one is refused.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};

use convert::{from_gguf, from_safetensors, residual};
use gguf::{Dtype, open_header};
use sha2::{Digest, Sha256};

/// SHA-256 of the tensors of the BF16 file that `from_safetensors` makes of the original weights; see [`digest`].
const WEIGHTS: &str = "6891e27ae7d66733519f7211e163f41cda05d1a763fc249fd9bdea400d22bf0f";

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn quantized() -> PathBuf {
    testdata().join("hub/kimi-operator/Kimi-Tiny-GGUF/Q8_0")
}

fn committed() -> PathBuf {
    testdata().join("Kimi-Tiny-BF16.residual")
}

/// Over name, type and bytes of each tensor, by name.
fn digest(path: &Path) -> String {
    let header = open_header(path).unwrap();
    let file = fs::read(path).unwrap();
    let mut tensors: Vec<_> = header.tensors.iter().collect();
    tensors.sort_by_key(|tensor| &tensor.name);
    let mut hash = Sha256::new();
    for tensor in tensors {
        let start = (header.data_offset + tensor.offset) as usize;
        hash.update(format!("{} {}\n", tensor.name, tensor.dtype));
        hash.update(&file[start..start + tensor.bytes as usize]);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn the_committed_residual_restores_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bf16.gguf");
    residual::restore(&quantized(), &committed(), &out).unwrap();
    assert_eq!(digest(&out), WEIGHTS);
    assert_eq!(
        open_header(&out)
            .unwrap()
            .metadata
            .get_u32("general.file_type"),
        Ok(32)
    );
}

/// With the original weights at hand: makes the residual again, and shows that files made of the restored model are
/// those made of the safetensors.
#[test]
fn the_residual_is_that_of_the_original_weights() {
    let Some(fixtures) = std::env::var_os("KIMI_FIXTURES").map(PathBuf::from) else {
        eprintln!("skipped: KIMI_FIXTURES does not name the directory that holds kimi-tiny/");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let convert = |dtype: Dtype| {
        let out = dir.path().join(format!("{dtype}.gguf"));
        from_safetensors(
            &fixtures.join("kimi-tiny"),
            "Kimi-Tiny",
            dtype,
            &out,
            &mut |_, _, _| {},
        )
        .unwrap();
        out
    };
    let full = convert(Dtype::BF16);
    assert_eq!(digest(&full), WEIGHTS);
    let made = dir.path().join("residual");
    residual::make(&quantized(), &full, &made).unwrap();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::copy(&made, committed()).unwrap();
    }
    assert!(fs::read(&made).unwrap() == fs::read(committed()).unwrap());

    let restored = dir.path().join("restored.gguf");
    residual::restore(&quantized(), &made, &restored).unwrap();
    for dtype in [
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::Q8_0,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q4_0,
    ] {
        let again = dir.path().join("again.gguf");
        from_gguf(&restored, dtype, &again, &mut |_, _, _| {}).unwrap();
        assert_eq!(digest(&again), digest(&convert(dtype)), "{dtype}");
    }
}

#[test]
fn damaged_and_foreign_residuals_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [bad, out] = ["bad", "out.gguf"].map(|name| dir.path().join(name));
    let good = fs::read(committed()).unwrap();
    for damaged in [
        &good[..good.len() - 16],
        &[&good[..], &[0; 16]].concat(),
        &[0xff; 4096],
        &[],
    ] {
        fs::write(&bad, damaged).unwrap();
        let error = residual::restore(&quantized(), &bad, &out).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not belong to this Q8_0 model"),
            "{error}"
        );
        assert!(!out.exists());
    }
    let other = testdata().join("hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M");
    assert!(
        residual::restore(&other, &committed(), &out)
            .unwrap_err()
            .to_string()
            .contains("is stored as")
    );
}
