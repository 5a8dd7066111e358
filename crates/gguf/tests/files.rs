//! Files written, split, found again and read back.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use gguf::shard::{self, ShardError, check_set, find_shards};
use gguf::write::WriteError;
use gguf::{
    Array, Dtype, Error, Metadata, ShardName, TensorSpec, Value, Writer, open_header, read_header,
};

fn spec(name: &str, dims: &[u64], dtype: Dtype) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dims: dims.to_vec(),
        dtype,
    }
}

fn every_kind_of_value() -> Metadata {
    let mut metadata = Metadata::new();
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.5),
        Value::Bool(true),
        Value::String("語".into()),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F64(0.25),
        Value::Array(Array::U8(vec![1])),
        Value::Array(Array::I8(vec![-1])),
        Value::Array(Array::U16(vec![2])),
        Value::Array(Array::I16(vec![-2])),
        Value::Array(Array::U32(vec![3])),
        Value::Array(Array::I32(vec![-3])),
        Value::Array(Array::F32(vec![0.5])),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::String(vec!["a".into(), String::new()])),
        Value::Array(Array::U64(vec![4])),
        Value::Array(Array::I64(vec![-4])),
        Value::Array(Array::F64(vec![0.125])),
    ];
    for (index, value) in values.into_iter().enumerate() {
        metadata.set(&format!("test.{index}"), value);
    }
    metadata
}

#[test]
fn what_is_written_is_read_back() {
    let mut metadata = every_kind_of_value();
    metadata.set("general.alignment", Value::U32(64));
    let tensors = [
        spec("a", &[3], Dtype::F32),
        spec("b", &[32, 2], Dtype::Q8_0),
    ];
    let mut writer = Writer::new(Vec::new(), &metadata, &tensors).unwrap();
    writer.append("a", &[1; 5]).unwrap();
    writer.append("a", &[2; 7]).unwrap();
    writer.append("b", &[3; 68]).unwrap();
    let bytes = writer.finish().unwrap();

    let header = read_header(&bytes, Some(bytes.len() as u64)).unwrap();
    assert_eq!(header.metadata, metadata);
    assert_eq!(header.tensors[1].offset, 64);
    assert_eq!(header.tensor("b").unwrap().rows(), 2);
    let at = header.data_offset as usize;
    assert_eq!(&bytes[at..at + 12], &[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(&bytes[at + 64..at + 132], &[3; 68]);
    assert_eq!(header.file_bytes(), at as u64 + 132);
}

#[test]
fn the_writer_refuses_disorder() {
    let tensors = [spec("a", &[1], Dtype::F32), spec("b", &[1], Dtype::F32)];
    let mut writer = Writer::new(Vec::new(), &Metadata::new(), &tensors).unwrap();
    assert!(matches!(
        writer.append("b", &[0]),
        Err(WriteError::Order { .. })
    ));
    assert!(matches!(
        writer.append("a", &[0; 5]),
        Err(WriteError::TooLong { given: 1, .. })
    ));
    writer.append("a", &[0; 4]).unwrap();
    writer.append("b", &[0; 1]).unwrap();
    assert!(matches!(
        writer.finish(),
        Err(WriteError::Unfinished { missing: 3, .. })
    ));
    let odd = Writer::new(
        Vec::new(),
        &Metadata::new(),
        &[spec("a", &[33], Dtype::Q8_0)],
    );
    assert!(matches!(odd, Err(WriteError::Dimensions { .. })));
}

#[test]
fn shard_names() {
    let shard = ShardName::parse("Kimi-K2-UD-Q2_K_XL-00002-of-00008.gguf").unwrap();
    assert_eq!(
        (shard.prefix.as_str(), shard.no, shard.count),
        ("Kimi-K2-UD-Q2_K_XL", 2, 8)
    );
    assert_eq!(shard.to_string(), "Kimi-K2-UD-Q2_K_XL-00002-of-00008.gguf");
    for bad in [
        "model.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        "m-00001-of-00003.bin",
        "m-00001-of-99999.gguf",
        "-00001-of-00001.gguf",
    ] {
        assert_eq!(ShardName::parse(bad), None, "{bad}");
    }
}

/// Writes `count` shards with one tensor each.
fn write_set(dir: &Path, count: u32) -> PathBuf {
    for no in 1..=count {
        let mut metadata = Metadata::new();
        metadata.set(shard::NO_KEY, Value::U16(no as u16 - 1));
        metadata.set(shard::COUNT_KEY, Value::U16(count as u16));
        metadata.set(shard::TENSORS_KEY, Value::I32(count as i32));
        let name = format!("t{no}");
        let tensors = [spec(&name, &[1], Dtype::F32)];
        let mut writer = Writer::new(Vec::new(), &metadata, &tensors).unwrap();
        writer.append(&name, &[0; 4]).unwrap();
        fs::write(
            dir.join(shard::name("m", no, count)),
            writer.finish().unwrap(),
        )
        .unwrap();
    }
    dir.join(shard::name("m", 1, count))
}

#[test]
fn sets_of_one_to_1200_shards() {
    for count in [1, 2, 1200] {
        let dir = tempfile::tempdir().unwrap();
        let first = write_set(dir.path(), count);
        let paths = find_shards(&first).unwrap();
        assert_eq!(paths.len(), count as usize);
        assert_eq!(paths, find_shards(dir.path()).unwrap());
        assert_eq!(paths, find_shards(&paths[paths.len() - 1]).unwrap());
        let headers: Vec<_> = paths
            .iter()
            .map(|path| open_header(path).unwrap())
            .collect();
        check_set(&headers).unwrap();
    }
}

#[test]
fn broken_sets_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_set(dir.path(), 3);
    let paths = find_shards(&first).unwrap();
    let headers: Vec<_> = paths
        .iter()
        .map(|path| open_header(path).unwrap())
        .collect();

    assert!(matches!(
        check_set(&headers[..2]),
        Err(ShardError::Count { count: 3, found: 2 })
    ));
    let mut swapped = headers.clone();
    swapped.swap(1, 2);
    assert!(matches!(
        check_set(&swapped),
        Err(ShardError::Order { place: 2, no: 3 })
    ));
    let mut doubled = headers.clone();
    doubled[2].tensors = headers[1].tensors.clone();
    assert!(matches!(check_set(&doubled), Err(ShardError::DuplicateTensor(name)) if name == "t2"));
    let mut short = headers.clone();
    short[2].tensors.clear();
    assert!(matches!(
        check_set(&short),
        Err(ShardError::Tensors {
            found: 2,
            announced: 3
        })
    ));
    assert!(check_set(&[]).is_err());

    fs::remove_file(&paths[1]).unwrap();
    let error = find_shards(&first).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("m-00002-of-00003.gguf is missing (1 of 3"),
        "{error}"
    );
}

#[test]
fn directories_hold_one_model() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        find_shards(dir.path()),
        Err(ShardError::NoModel(_))
    ));
    write_set(dir.path(), 2);
    fs::write(dir.path().join("mmproj-F16.gguf"), b"").unwrap();
    assert_eq!(find_shards(dir.path()).unwrap().len(), 2);
    fs::write(dir.path().join("other.gguf"), b"").unwrap();
    let error = find_shards(dir.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("m-00001-of-00002.gguf, other.gguf"),
        "{error}"
    );
    assert!(find_shards(&dir.path().join("absent.gguf")).is_err());
}

/// Headers longer than the reader's first prefix, and files that end early.
#[test]
fn long_headers_and_truncated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.gguf");
    let mut metadata = Metadata::new();
    metadata.set("long", Value::String("x".repeat(3 << 20)));
    let tensors = [spec("a", &[64], Dtype::F32)];
    let mut writer = Writer::new(Vec::new(), &metadata, &tensors).unwrap();
    writer.append("a", &[0; 256]).unwrap();
    let bytes = writer.finish().unwrap();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open_header(&path).unwrap().metadata, metadata);

    for cut in [bytes.len() - 1, 2 << 20, 3] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let error = open_header(&path).unwrap_err();
        assert!(error.to_string().contains("long.gguf"), "{error}");
        assert!(
            matches!(error, Error::File { source, .. } if matches!(*source, Error::Truncated { .. }))
        );
    }
}
