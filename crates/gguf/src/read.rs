//! The bounded header reader: bytes of a file's beginning in, checked tables out.
//! It never reads tensor data and must not know what a model does with its tensors.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::cursor::Cursor;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::limits;
use crate::metadata::{Array, Metadata, Value, id};

/// Alignment of the data section when `general.alignment` is absent.
pub const DEFAULT_ALIGNMENT: u32 = 32;

/// Where the alignment is kept.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// One row of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Dimensions in ggml's order: `dims[0]` is the row length and varies fastest. 1 to 4, none of them zero.
    pub dims: Vec<u64>,
    pub dtype: Dtype,
    /// Bytes from the start of the data section.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u64,
}

impl TensorInfo {
    /// Values in a row.
    pub fn row_values(&self) -> u64 {
        self.dims[0]
    }

    /// Rows of all outer dimensions together. Cannot overflow: the reader checked the product.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }

    /// Values of the whole tensor.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// A checked header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub version: u32,
    pub metadata: Metadata,
    /// In the order of the file's table.
    pub tensors: Vec<TensorInfo>,
    /// Bytes from the start of the file to the data section.
    pub data_offset: u64,
    /// Each tensor's offset is a multiple of this.
    pub alignment: u64,
}

impl Header {
    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Bytes the file must have for every tensor to be whole: final padding left out, 0 without tensors.
    pub fn file_bytes(&self) -> u64 {
        let ends = self
            .tensors
            .iter()
            .map(|tensor| tensor.offset + tensor.bytes);
        ends.max().map_or(0, |end| self.data_offset + end)
    }
}

/// Reads the header from the first bytes of a file.
///
/// `file_len`, where known, lets the reader tell a truncated file from a short prefix and check that each tensor
/// lies inside the file.
///
/// # Errors
/// [`Error::Incomplete`] when `prefix` ends inside the header: read at least that many bytes and call again (a
/// doubling prefix needs few calls). Any other error is final for these bytes. Limits are in [`crate::limits`].
pub fn read_header(prefix: &[u8], file_len: Option<u64>) -> Result<Header, Error> {
    let mut cursor = Cursor::new(prefix, file_len);
    let magic = cursor.array::<4>("the magic number")?;
    if &magic != b"GGUF" {
        return Err(Error::NotGguf { found: magic });
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        // A version in the upper half word is a small number with its bytes swapped.
        swapped if swapped & 0xffff == 0 && swapped != 0 => return Err(Error::BigEndian),
        other => return Err(Error::Version(other)),
    }
    let tensor_count = limited(
        "the tensor count",
        cursor.u64("the tensor count")?,
        limits::TENSORS,
    )?;
    let key_count = limited(
        "the metadata count",
        cursor.u64("the metadata count")?,
        limits::METADATA_KEYS,
    )?;

    let metadata = read_metadata(&mut cursor, key_count)?;
    let alignment = match metadata
        .opt_u32(ALIGNMENT_KEY)?
        .unwrap_or(DEFAULT_ALIGNMENT)
    {
        value if value.is_power_of_two() && (8..=limits::ALIGNMENT).contains(&value) => {
            u64::from(value)
        }
        value => return Err(Error::Alignment(value)),
    };
    let tensors = read_tensors(&mut cursor, tensor_count, alignment)?;
    let header = Header {
        version,
        metadata,
        tensors,
        data_offset: cursor.position().next_multiple_of(alignment),
        alignment,
    };
    check_layout(&header, file_len)?;
    Ok(header)
}

/// Reads the header of a local file.
///
/// # Errors
/// As [`read_header`] with the path, never [`Error::Incomplete`]; [`Error::Io`] when the file cannot be read.
pub fn open_header(path: &Path) -> Result<Header, Error> {
    let io = |error| Error::Io {
        path: path.to_owned(),
        error,
    };
    let mut file = File::open(path).map_err(io)?;
    let file_len = file.metadata().map_err(io)?.len();
    let mut prefix = Vec::new();
    let mut want: u64 = 1 << 20;
    loop {
        let missing = want - prefix.len() as u64;
        (&mut file)
            .take(missing)
            .read_to_end(&mut prefix)
            .map_err(io)?;
        match read_header(&prefix, Some(file_len)) {
            Err(Error::Incomplete { need_at_least, .. }) if prefix.len() as u64 == want => {
                want = need_at_least.max(want * 2);
            }
            result => {
                return result.map_err(|source| Error::File {
                    path: path.to_owned(),
                    source: Box::new(source),
                });
            }
        }
    }
}

fn limited(what: &str, value: u64, limit: u64) -> Result<u64, Error> {
    if value > limit {
        return Err(Error::Limit {
            what: what.to_owned(),
            value,
            limit,
        });
    }
    Ok(value)
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, Error> {
    let mut metadata = Metadata::new();
    let mut array_elements = 0;
    for _ in 0..count {
        let key = cursor.string("a metadata key", limits::NAME_BYTES)?;
        let type_id = cursor.u32(&key)?;
        let value = if type_id == id::ARRAY {
            let array = read_array(cursor, &key)?;
            array_elements += array.len() as u64;
            limited(
                "the number of elements of all arrays",
                array_elements,
                limits::ALL_ARRAY_ELEMENTS,
            )?;
            Value::Array(array)
        } else {
            read_scalar(cursor, &key, type_id)?
        };
        if metadata.set(&key, value).is_some() {
            return Err(Error::DuplicateKey(key));
        }
    }
    Ok(metadata)
}

fn read_scalar(cursor: &mut Cursor<'_>, key: &str, type_id: u32) -> Result<Value, Error> {
    Ok(match type_id {
        id::U8 => Value::U8(u8::from_le_bytes(cursor.array(key)?)),
        id::I8 => Value::I8(i8::from_le_bytes(cursor.array(key)?)),
        id::U16 => Value::U16(u16::from_le_bytes(cursor.array(key)?)),
        id::I16 => Value::I16(i16::from_le_bytes(cursor.array(key)?)),
        id::U32 => Value::U32(u32::from_le_bytes(cursor.array(key)?)),
        id::I32 => Value::I32(i32::from_le_bytes(cursor.array(key)?)),
        id::F32 => Value::F32(f32::from_le_bytes(cursor.array(key)?)),
        id::BOOL => Value::Bool(read_bool(key, cursor.array(key)?)?),
        id::STRING => Value::String(cursor.string(key, limits::STRING_BYTES)?),
        id::U64 => Value::U64(u64::from_le_bytes(cursor.array(key)?)),
        id::I64 => Value::I64(i64::from_le_bytes(cursor.array(key)?)),
        id::F64 => Value::F64(f64::from_le_bytes(cursor.array(key)?)),
        id => {
            return Err(Error::ValueType {
                key: key.to_owned(),
                id,
            });
        }
    })
}

fn read_bool(key: &str, [byte]: [u8; 1]) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Error::Bool {
            key: key.to_owned(),
            value,
        }),
    }
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, Error> {
    let type_id = cursor.u32(key)?;
    let count = limited(
        &format!("the length of the array '{key}'"),
        cursor.u64(key)?,
        limits::ARRAY_ELEMENTS,
    )? as usize;
    Ok(match type_id {
        id::U8 => Array::U8(cursor.numbers(key, count, u8::from_le_bytes)?),
        id::I8 => Array::I8(cursor.numbers(key, count, i8::from_le_bytes)?),
        id::U16 => Array::U16(cursor.numbers(key, count, u16::from_le_bytes)?),
        id::I16 => Array::I16(cursor.numbers(key, count, i16::from_le_bytes)?),
        id::U32 => Array::U32(cursor.numbers(key, count, u32::from_le_bytes)?),
        id::I32 => Array::I32(cursor.numbers(key, count, i32::from_le_bytes)?),
        id::F32 => Array::F32(cursor.numbers(key, count, f32::from_le_bytes)?),
        id::U64 => Array::U64(cursor.numbers(key, count, u64::from_le_bytes)?),
        id::I64 => Array::I64(cursor.numbers(key, count, i64::from_le_bytes)?),
        id::F64 => Array::F64(cursor.numbers(key, count, f64::from_le_bytes)?),
        id::BOOL => {
            let bytes = cursor.take(count as u64, key)?;
            let bools: Result<_, _> = bytes.iter().map(|&byte| read_bool(key, [byte])).collect();
            Array::Bool(bools?)
        }
        id::STRING => {
            // A string takes at least its 8-byte length, so the reservation is bounded by the bytes at hand.
            let mut strings = Vec::with_capacity(count.min(cursor.remaining() / 8));
            for _ in 0..count {
                strings.push(cursor.string(key, limits::STRING_BYTES)?);
            }
            Array::String(strings)
        }
        id::ARRAY => {
            return Err(Error::NestedArray {
                key: key.to_owned(),
            });
        }
        id => {
            return Err(Error::ValueType {
                key: key.to_owned(),
                id,
            });
        }
    })
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo>, Error> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let tensor = read_tensor(cursor, alignment)?;
        if !names.insert(tensor.name.clone()) {
            return Err(Error::DuplicateTensor(tensor.name));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn read_tensor(cursor: &mut Cursor<'_>, alignment: u64) -> Result<TensorInfo, Error> {
    let name = cursor.string("a tensor name", limits::NAME_BYTES)?;
    let count = cursor.u32(&name)?;
    if !(1..=4).contains(&count) {
        return Err(Error::DimensionCount {
            tensor: name,
            count,
        });
    }
    let dims = cursor.numbers(&name, count as usize, u64::from_le_bytes)?;
    let type_id = cursor.u32(&name)?;
    let offset = cursor.u64(&name)?;

    let Some(dtype) = Dtype::from_id(type_id) else {
        return Err(Error::UnknownType {
            tensor: name,
            id: type_id,
        });
    };
    // Dimensions are signed in the format, so the value count must fit in an i64.
    let values = dims
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim));
    if !matches!(values, Some(values) if values > 0 && i64::try_from(values).is_ok()) {
        return Err(Error::Dimensions { tensor: name, dims });
    }
    if !dims[0].is_multiple_of(dtype.block_values() as u64) {
        return Err(Error::RowLength {
            tensor: name,
            row: dims[0],
            dtype: dtype.name(),
            block: dtype.block_values(),
        });
    }
    let end = dtype.tensor_bytes(&dims).filter(|bytes| {
        bytes
            .checked_add(offset)
            .is_some_and(|end| i64::try_from(end).is_ok())
    });
    let Some(bytes) = end else {
        return Err(Error::Dimensions { tensor: name, dims });
    };
    if !offset.is_multiple_of(alignment) {
        return Err(Error::Misaligned {
            tensor: name,
            offset,
            alignment,
        });
    }
    Ok(TensorInfo {
        name,
        dims,
        dtype,
        offset,
        bytes,
    })
}

/// Tensors may come in any order and leave gaps, but share no byte and end inside the file.
fn check_layout(header: &Header, file_len: Option<u64>) -> Result<(), Error> {
    let mut by_offset: Vec<&TensorInfo> = header.tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            return Err(Error::Overlap {
                tensor: pair[0].name.clone(),
                other: pair[1].name.clone(),
            });
        }
    }
    let (Some(last), Some(file_len)) = (by_offset.last(), file_len) else {
        return Ok(());
    };
    // Saturating: offset + bytes fits in an i64, the data offset is below the header limit.
    let need = header.data_offset.saturating_add(last.offset + last.bytes);
    if need > file_len {
        return Err(Error::Truncated {
            what: format!("tensor '{}'", last.name),
            need,
            file_len,
        });
    }
    Ok(())
}
