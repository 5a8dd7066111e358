//! Properties of reader and writer over random files: what is written is read back, and no damage makes the reader
//! panic, loop or accept a table that overflows.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use gguf::{Array, Dtype, Error, Metadata, TensorSpec, Value, Writer, read_header};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        (-1e30f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        vec(any::<u16>(), 0..5).prop_map(|v| Value::Array(Array::U16(v))),
        vec(".{0,5}", 0..5).prop_map(|v| Value::Array(Array::String(v))),
    ]
}

/// Up to four dimensions of a type, rows being one or two blocks.
fn shape() -> impl Strategy<Value = (Dtype, Vec<u64>)> {
    (select(Dtype::ALL), 1u64..3, vec(1u64..4, 0..4)).prop_map(|(dtype, blocks, outer)| {
        let mut dims = vec![blocks * dtype.block_values() as u64];
        dims.extend(outer);
        (dtype, dims)
    })
}

fn file() -> impl Strategy<Value = (Metadata, Vec<TensorSpec>)> {
    let metadata = btree_map("[a-z.]{1,12}", value(), 0..6);
    let tensors = btree_map("[a-z0-9._]{1,16}", shape(), 0..6);
    (metadata, tensors, 3u32..8).prop_map(
        |(values, shapes, power): (BTreeMap<_, _>, BTreeMap<_, _>, _)| {
            let mut metadata = Metadata::new();
            for (key, value) in values {
                metadata.set(&key, value);
            }
            metadata.set("general.alignment", Value::U32(1 << power));
            let spec = |(name, (dtype, dims))| TensorSpec { name, dims, dtype };
            (metadata, shapes.into_iter().map(spec).collect())
        },
    )
}

fn write(metadata: &Metadata, tensors: &[TensorSpec]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), metadata, tensors).unwrap();
    for tensor in tensors {
        let bytes = tensor.dtype.tensor_bytes(&tensor.dims).unwrap();
        writer
            .append(&tensor.name, &vec![7; bytes as usize])
            .unwrap();
    }
    writer.finish().unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read((metadata, tensors) in file()) {
        let bytes = write(&metadata, &tensors);
        let header = read_header(&bytes, Some(bytes.len() as u64)).unwrap();
        prop_assert_eq!(&header.metadata, &metadata);
        prop_assert_eq!(header.tensors.len(), tensors.len());
        for (found, spec) in header.tensors.iter().zip(&tensors) {
            prop_assert_eq!(&found.name, &spec.name);
            prop_assert_eq!(&found.dims, &spec.dims);
            prop_assert_eq!(found.dtype, spec.dtype);
            prop_assert_eq!(found.rows() * found.row_values(), found.values());
            let start = (header.data_offset + found.offset) as usize;
            prop_assert!(bytes[start..start + found.bytes as usize].iter().all(|byte| *byte == 7));
        }
    }

    /// A range reader that follows `need_at_least` ends, having asked for no more than the header.
    #[test]
    fn incomplete_leads_to_the_whole_header((metadata, tensors) in file()) {
        let bytes = write(&metadata, &tensors);
        let mut have = 0;
        loop {
            match read_header(&bytes[..have], Some(bytes.len() as u64)) {
                Ok(header) => {
                    prop_assert!(have as u64 <= header.data_offset);
                    break;
                }
                Err(Error::Incomplete { need_at_least, .. }) => {
                    prop_assert!(need_at_least as usize > have);
                    have = need_at_least as usize;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
    }

    /// Any bytes changed: an error or a consistent table, never a panic.
    #[test]
    fn damage_is_survived((metadata, tensors) in file(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = write(&metadata, &tensors);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(header) = read_header(&bytes, Some(bytes.len() as u64)) {
            prop_assert!(header.file_bytes() <= bytes.len() as u64);
        }
    }

    #[test]
    fn noise_is_survived(noise in vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(noise);
        let _ = read_header(&bytes, None);
    }
}
