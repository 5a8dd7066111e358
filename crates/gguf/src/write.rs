//! The streaming writer: the header first, then each tensor's bytes in order, never more than a chunk in memory.
//! It must not know how the bytes are made.

use std::io::{self, Write};

use crate::dtype::Dtype;
use crate::metadata::{Array, Metadata, Value, id};
use crate::read::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};

/// The version written.
const VERSION: u32 = 3;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    /// ggml's order: `dims[0]` is the row length.
    pub dims: Vec<u64>,
    pub dtype: Dtype,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("general.alignment must be a u32 power of two of at least 8")]
    Alignment,
    #[error("tensor '{tensor}' with dimensions {dims:?} does not fit type {dtype}")]
    Dimensions {
        tensor: String,
        dims: Vec<u64>,
        dtype: Dtype,
    },
    #[error("tensor '{got}' was written where '{expected}' is due")]
    Order { got: String, expected: String },
    #[error("tensor '{tensor}' is given {given} bytes beyond its end")]
    TooLong { tensor: String, given: u64 },
    #[error("tensor '{tensor}' still lacks {missing} bytes")]
    Unfinished { tensor: String, missing: u64 },
}

/// Writes one GGUF file to `W`; see [`Writer::new`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    alignment: u64,
    /// Name and bytes of each tensor, in order.
    tensors: Vec<(String, u64)>,
    current: usize,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header. The data of every tensor must follow through [`Writer::append`], in the order of `tensors`.
    ///
    /// The alignment is `general.alignment` of the metadata, or 32.
    ///
    /// # Errors
    /// When the alignment or a tensor's dimensions are impossible, or the output fails.
    pub fn new(
        mut out: W,
        metadata: &Metadata,
        tensors: &[TensorSpec],
    ) -> Result<Writer<W>, WriteError> {
        let alignment = match metadata.opt_u32(ALIGNMENT_KEY) {
            Ok(value) => value.unwrap_or(DEFAULT_ALIGNMENT),
            Err(_) => return Err(WriteError::Alignment),
        };
        if !alignment.is_power_of_two() || alignment < 8 {
            return Err(WriteError::Alignment);
        }
        let alignment = u64::from(alignment);

        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            put_string(&mut header, key);
            put_value(&mut header, value);
        }
        let mut sizes = Vec::with_capacity(tensors.len());
        let mut offset = 0;
        for tensor in tensors {
            let bytes = tensor_bytes(tensor)?;
            put_string(&mut header, &tensor.name);
            header.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
            put_numbers(&mut header, &tensor.dims, u64::to_le_bytes);
            header.extend_from_slice(&tensor.dtype.id().to_le_bytes());
            header.extend_from_slice(&u64::to_le_bytes(offset));
            sizes.push((tensor.name.clone(), bytes));
            offset += bytes.next_multiple_of(alignment);
        }
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        out.write_all(&header)?;
        Ok(Writer {
            out,
            alignment,
            tensors: sizes,
            current: 0,
            written: 0,
        })
    }

    /// Appends bytes to tensor `name`, which must be the one that is due; a tensor may come in many chunks.
    ///
    /// # Errors
    /// When another tensor is due, when the bytes go beyond the tensor's end, or when the output fails.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let (expected, size) = match self.tensors.get(self.current) {
            Some((expected, size)) => (expected.as_str(), *size),
            None => ("the end of the file", 0),
        };
        if name != expected {
            return Err(WriteError::Order {
                got: name.to_owned(),
                expected: expected.to_owned(),
            });
        }
        let given = bytes.len() as u64;
        if given > size - self.written {
            return Err(WriteError::TooLong {
                tensor: name.to_owned(),
                given: given - (size - self.written),
            });
        }
        self.out.write_all(bytes)?;
        self.written += given;
        if self.written == size {
            let padding = size.next_multiple_of(self.alignment) - size;
            io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.out)?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// When a tensor is unfinished or the output fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if let Some((tensor, size)) = self.tensors.get(self.current) {
            return Err(WriteError::Unfinished {
                tensor: tensor.clone(),
                missing: size - self.written,
            });
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn tensor_bytes(tensor: &TensorSpec) -> Result<u64, WriteError> {
    let bytes = tensor.dtype.tensor_bytes(&tensor.dims);
    bytes
        .filter(|bytes| *bytes > 0 && tensor.dims.len() <= 4 && i64::try_from(*bytes).is_ok())
        .ok_or_else(|| WriteError::Dimensions {
            tensor: tensor.name.clone(),
            dims: tensor.dims.clone(),
            dtype: tensor.dtype,
        })
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_numbers<T: Copy, const N: usize>(
    out: &mut Vec<u8>,
    numbers: &[T],
    to_le_bytes: fn(T) -> [u8; N],
) {
    for number in numbers {
        out.extend_from_slice(&to_le_bytes(*number));
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut scalar = |id: u32, bytes: &[u8]| {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::U8(v) => scalar(id::U8, &v.to_le_bytes()),
        Value::I8(v) => scalar(id::I8, &v.to_le_bytes()),
        Value::U16(v) => scalar(id::U16, &v.to_le_bytes()),
        Value::I16(v) => scalar(id::I16, &v.to_le_bytes()),
        Value::U32(v) => scalar(id::U32, &v.to_le_bytes()),
        Value::I32(v) => scalar(id::I32, &v.to_le_bytes()),
        Value::F32(v) => scalar(id::F32, &v.to_le_bytes()),
        Value::Bool(v) => scalar(id::BOOL, &[u8::from(*v)]),
        Value::U64(v) => scalar(id::U64, &v.to_le_bytes()),
        Value::I64(v) => scalar(id::I64, &v.to_le_bytes()),
        Value::F64(v) => scalar(id::F64, &v.to_le_bytes()),
        Value::String(text) => {
            out.extend_from_slice(&id::STRING.to_le_bytes());
            put_string(out, text);
        }
        Value::Array(array) => {
            out.extend_from_slice(&id::ARRAY.to_le_bytes());
            put_array(out, array);
        }
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let element = match array {
        Array::U8(_) => id::U8,
        Array::I8(_) => id::I8,
        Array::U16(_) => id::U16,
        Array::I16(_) => id::I16,
        Array::U32(_) => id::U32,
        Array::I32(_) => id::I32,
        Array::F32(_) => id::F32,
        Array::Bool(_) => id::BOOL,
        Array::String(_) => id::STRING,
        Array::U64(_) => id::U64,
        Array::I64(_) => id::I64,
        Array::F64(_) => id::F64,
    };
    out.extend_from_slice(&element.to_le_bytes());
    out.extend_from_slice(&(array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => put_numbers(out, v, i8::to_le_bytes),
        Array::U16(v) => put_numbers(out, v, u16::to_le_bytes),
        Array::I16(v) => put_numbers(out, v, i16::to_le_bytes),
        Array::U32(v) => put_numbers(out, v, u32::to_le_bytes),
        Array::I32(v) => put_numbers(out, v, i32::to_le_bytes),
        Array::F32(v) => put_numbers(out, v, f32::to_le_bytes),
        Array::Bool(v) => out.extend(v.iter().map(|b| u8::from(*b))),
        Array::U64(v) => put_numbers(out, v, u64::to_le_bytes),
        Array::I64(v) => put_numbers(out, v, i64::to_le_bytes),
        Array::F64(v) => put_numbers(out, v, f64::to_le_bytes),
        Array::String(v) => v.iter().for_each(|text| put_string(out, text)),
    }
}
