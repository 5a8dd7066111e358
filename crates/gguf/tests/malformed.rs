//! One test per way a header can be wrong: each is refused with an error that says what is wrong and where.
#![allow(clippy::unwrap_used, clippy::panic)]

use gguf::{Dtype, Error, limits, read_header};

/// A header put together byte by byte, so that it can be wrong.
#[derive(Clone)]
struct Raw {
    magic: [u8; 4],
    version: [u8; 4],
    tensor_count: u64,
    key_count: u64,
    body: Vec<u8>,
}

impl Raw {
    fn new(tensor_count: u64, key_count: u64) -> Raw {
        Raw {
            magic: *b"GGUF",
            version: 3u32.to_le_bytes(),
            tensor_count,
            key_count,
            body: Vec::new(),
        }
    }

    fn string(mut self, text: &str) -> Raw {
        self.body
            .extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.body.extend_from_slice(text.as_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Raw {
        self.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Raw {
        self.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u8(mut self, value: u8) -> Raw {
        self.body.push(value);
        self
    }

    fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Raw {
        let mut raw = self.string(name).u32(dims.len() as u32);
        for dim in dims {
            raw = raw.u64(*dim);
        }
        raw.u32(type_id).u64(offset)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version);
        bytes.extend_from_slice(&self.tensor_count.to_le_bytes());
        bytes.extend_from_slice(&self.key_count.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn error(&self) -> Error {
        read_header(&self.bytes(), None).unwrap_err()
    }
}

#[test]
fn not_gguf() {
    let error = read_header(b"<!DOCTYPE html>", None).unwrap_err();
    assert!(matches!(error, Error::NotGguf { found } if &found == b"<!DO"));
    assert!(error.to_string().contains("not a GGUF file"));
}

#[test]
fn empty_and_short_files() {
    assert!(matches!(
        read_header(b"", None),
        Err(Error::Incomplete {
            have: 0,
            need_at_least: 4
        })
    ));
    assert!(matches!(
        read_header(b"GGUF", Some(4)),
        Err(Error::Truncated { file_len: 4, .. })
    ));
}

#[test]
fn versions() {
    let mut raw = Raw::new(0, 0);
    raw.version = 3u32.to_be_bytes();
    assert!(matches!(raw.error(), Error::BigEndian));
    for version in [0u32, 1, 4] {
        raw.version = version.to_le_bytes();
        assert!(matches!(raw.error(), Error::Version(v) if v == version));
    }
}

#[test]
fn huge_counts() {
    let error = Raw::new(u64::MAX, 0).error();
    assert!(matches!(
        error,
        Error::Limit {
            limit: limits::TENSORS,
            ..
        }
    ));
    let error = Raw::new(0, limits::METADATA_KEYS + 1).error();
    assert!(error.to_string().contains("metadata count"), "{error}");
}

#[test]
fn huge_strings_and_arrays() {
    let error = Raw::new(0, 1).u64(u64::MAX).error();
    assert!(matches!(
        error,
        Error::Limit {
            limit: limits::NAME_BYTES,
            ..
        }
    ));
    let error = Raw::new(0, 1).string("k").u32(8).u64(1 << 40).error();
    assert!(error.to_string().contains("length of k"), "{error}");
    let array = Raw::new(0, 1).string("k").u32(9).u32(4).u64(1 << 40);
    assert!(array.error().to_string().contains("array 'k'"));
}

#[test]
fn too_many_array_elements_in_all() {
    let mut raw = Raw::new(0, 4);
    for key in ["a", "b", "c", "d"] {
        raw = raw.string(key).u32(9).u32(0).u64(limits::ARRAY_ELEMENTS);
        raw.body.resize(raw.body.len() + (1 << 20), 0);
    }
    assert!(matches!(
        raw.error(),
        Error::Limit {
            limit: limits::ALL_ARRAY_ELEMENTS,
            ..
        }
    ));
}

#[test]
fn header_without_end() {
    let mut raw = Raw::new(0, 20);
    for key in 0..20 {
        raw = raw
            .string(&format!("k{key}"))
            .u32(8)
            .u64(limits::STRING_BYTES);
        raw.body
            .resize(raw.body.len() + limits::STRING_BYTES as usize, b'x');
    }
    assert!(raw.error().to_string().contains("length of the header"));
}

#[test]
fn bad_metadata_values() {
    let error = Raw::new(0, 1).string("k").u32(13).u32(0).error();
    assert!(matches!(error, Error::ValueType { id: 13, .. }));
    let error = Raw::new(0, 1).string("k").u32(9).u32(99).u64(0).error();
    assert!(matches!(error, Error::ValueType { id: 99, .. }));
    let error = Raw::new(0, 1).string("k").u32(9).u32(9).u64(1).error();
    assert!(matches!(error, Error::NestedArray { .. }));
    let error = Raw::new(0, 1).string("k").u32(7).u8(2).error();
    assert!(matches!(error, Error::Bool { value: 2, .. }));
    let mut raw = Raw::new(0, 1).string("k").u32(8).u64(1);
    raw.body.push(0xff);
    assert!(matches!(raw.error(), Error::Utf8 { .. }));
    let twice = Raw::new(0, 2)
        .string("k")
        .u32(4)
        .u32(1)
        .string("k")
        .u32(4)
        .u32(1);
    assert!(matches!(twice.error(), Error::DuplicateKey(key) if key == "k"));
}

#[test]
fn bad_alignment() {
    for value in [0, 1, 24, 1 << 21] {
        let raw = Raw::new(0, 1).string("general.alignment").u32(4).u32(value);
        assert!(matches!(raw.error(), Error::Alignment(v) if v == value));
    }
    let raw = Raw::new(0, 1).string("general.alignment").u32(8).string("");
    assert!(matches!(raw.error(), Error::Metadata(_)));
}

#[test]
fn unsupported_type_is_named_with_its_tensor() {
    let error = Raw::new(1, 0).tensor("blk.3.x", &[32], 4242, 0).error();
    assert_eq!(
        error.to_string(),
        "tensor 'blk.3.x' has type id 4242, which is not a known tensor type"
    );
    let error = Raw::new(1, 0).tensor("t", &[256], 339, 0).error();
    assert_eq!(
        error.to_string(),
        "tensor 't' has type id 339, which is IQ4_K with interleaved rows (the ik fork's IQ4_K_R4 or IQ4_K_R8); use the \
         file of plain IQ4_K"
    );
}

#[test]
fn bad_dimensions() {
    let error = Raw::new(1, 0).tensor("t", &[], 0, 0).error();
    assert!(matches!(error, Error::DimensionCount { count: 0, .. }));
    let error = Raw::new(1, 0).tensor("t", &[1; 5], 0, 0).error();
    assert!(matches!(error, Error::DimensionCount { count: 5, .. }));
    for dims in [
        &[0][..],
        &[1, 0],
        &[1 << 32, 1 << 32],
        &[u64::MAX],
        &[1 << 62, 1],
    ] {
        let error = Raw::new(1, 0).tensor("t", dims, 0, 0).error();
        assert!(matches!(error, Error::Dimensions { .. }), "{dims:?}");
    }
    let error = Raw::new(1, 0)
        .tensor("t", &[128, 4], Dtype::Q4_K.id(), 0)
        .error();
    assert!(error.to_string().contains("rows of 128"), "{error}");
}

#[test]
fn bad_offsets() {
    let error = Raw::new(1, 0).tensor("t", &[1], 0, 5).error();
    assert!(matches!(error, Error::Misaligned { offset: 5, .. }));
    let error = Raw::new(1, 0).tensor("t", &[1], 0, u64::MAX - 31).error();
    assert!(matches!(error, Error::Dimensions { .. }));
    let overlap = Raw::new(2, 0)
        .tensor("a", &[16], 0, 0)
        .tensor("b", &[1], 0, 32);
    let error = overlap.error();
    assert_eq!(error.to_string(), "tensor 'a' overlaps tensor 'b'");
}

#[test]
fn offset_beyond_the_file() {
    let mut bytes = Raw::new(1, 0).tensor("t", &[16], 0, 1 << 20).bytes();
    bytes.resize(4096, 0);
    let error = read_header(&bytes, Some(4096)).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }));
    assert!(error.to_string().contains("tensor 't'"), "{error}");
    assert!(read_header(&bytes, None).is_ok());
}

#[test]
fn duplicate_tensor() {
    let raw = Raw::new(2, 0)
        .tensor("a", &[8], 0, 0)
        .tensor("a", &[8], 0, 32);
    assert!(matches!(raw.error(), Error::DuplicateTensor(name) if name == "a"));
}

/// Every cut of a good header is told apart: incomplete for a prefix, truncated for a whole file. None panics.
#[test]
fn every_cut() {
    let raw = Raw::new(1, 2)
        .string("general.alignment")
        .u32(4)
        .u32(64)
        .string("names")
        .u32(9)
        .u32(8)
        .u64(1)
        .string("x")
        .tensor("t", &[32, 2], Dtype::Q8_0.id(), 0);
    let whole = raw.bytes();
    let header = read_header(&whole, None).unwrap();
    assert_eq!(header.alignment, 64);
    assert_eq!(
        header.data_offset,
        (whole.len() as u64).next_multiple_of(64)
    );
    for cut in 0..whole.len() {
        match read_header(&whole[..cut], None) {
            Err(Error::Incomplete {
                have,
                need_at_least,
            }) => {
                assert_eq!(have, cut as u64);
                assert!(need_at_least > have && need_at_least <= whole.len() as u64);
            }
            other => panic!("cut at {cut}: {other:?}"),
        }
        let file = read_header(&whole[..cut], Some(cut as u64));
        assert!(matches!(file, Err(Error::Truncated { .. })), "cut at {cut}");
    }
}
