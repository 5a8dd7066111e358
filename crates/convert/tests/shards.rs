//! Splitting, joining and re-encoding the committed test model.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use convert::{Error, from_gguf, split};
use gguf::shard::{check_set, find_shards};
use gguf::{Dtype, Header, open_header};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M")
}

fn headers(paths: &[PathBuf]) -> Vec<Header> {
    paths
        .iter()
        .map(|path| open_header(path).unwrap())
        .collect()
}

/// Name and bytes of every tensor, in order.
fn contents(paths: &[PathBuf]) -> Vec<(String, Vec<u8>)> {
    let mut tensors = Vec::new();
    for (path, header) in paths.iter().zip(headers(paths)) {
        let file = fs::read(path).unwrap();
        for tensor in &header.tensors {
            let start = (header.data_offset + tensor.offset) as usize;
            tensors.push((
                tensor.name.clone(),
                file[start..start + tensor.bytes as usize].to_vec(),
            ));
        }
    }
    tensors
}

#[test]
fn splitting_again_keeps_every_byte() {
    let original = find_shards(&model()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for count in [1, 2, 7, 70] {
        let paths = split(&original[0], &dir.path().join("m"), count).unwrap();
        assert_eq!(paths.len(), count as usize);
        assert_eq!(paths, find_shards(&paths[0]).unwrap());
        let headers = headers(&paths);
        check_set(&headers).unwrap();
        assert_eq!(
            headers[0].metadata.get_str("general.architecture"),
            Ok("deepseek2")
        );
        assert!(headers[1..].iter().all(|header| header.metadata.len() == 3));
        assert_eq!(contents(&paths), contents(&original));
    }
}

#[test]
fn impossible_splits() {
    let first = find_shards(&model()).unwrap().remove(0);
    let dir = tempfile::tempdir().unwrap();
    for count in [0, 71, u32::MAX] {
        let result = split(&first, &dir.path().join("m"), count);
        assert!(
            matches!(result, Err(Error::Shards { tensors: 70, .. })),
            "{count}"
        );
    }
    let lone = dir.path().join("m-00001-of-00003.gguf");
    fs::copy(&first, &lone).unwrap();
    assert!(
        split(&lone, &dir.path().join("n"), 2)
            .unwrap_err()
            .to_string()
            .contains("00002-of-00003.gguf is missing")
    );
    let renamed = dir.path().join("whole.gguf");
    fs::rename(&lone, &renamed).unwrap();
    let error = split(&renamed, &dir.path().join("n"), 2).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("split in 3 shards but 1 were given"),
        "{error}"
    );
}

#[test]
fn re_encoding_keeps_metadata_and_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f16.gguf");
    from_gguf(&model(), Dtype::F16, &out, &mut |_, _, _| {}).unwrap();
    let header = open_header(&out).unwrap();
    let original = headers(&find_shards(&model()).unwrap());
    assert_eq!(header.tensors.len(), 70);
    assert_eq!(header.metadata.get_u32("general.file_type"), Ok(1));
    assert_eq!(header.metadata.get("split.count"), None);
    for tensor in original.iter().flat_map(|header| &header.tensors) {
        let found = header.tensor(&tensor.name).unwrap();
        assert_eq!(found.dims, tensor.dims);
        let plain = tensor.dtype == Dtype::F32;
        assert_eq!(
            found.dtype,
            if plain { Dtype::F32 } else { Dtype::F16 },
            "{}",
            tensor.name
        );
    }
    // F32 holds every weight exactly, so the way through it changes nothing.
    let [direct, detour] = ["direct.gguf", "detour.gguf"].map(|name| dir.path().join(name));
    from_gguf(&model(), Dtype::F32, &direct, &mut |_, _, _| {}).unwrap();
    from_gguf(&direct, Dtype::F16, &detour, &mut |_, _, _| {}).unwrap();
    assert_eq!(contents(&[detour]), contents(&[out]));
}
