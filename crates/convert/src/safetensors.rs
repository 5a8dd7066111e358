//! A bounded reader of safetensors headers: where each tensor of a directory's files lies.
//! It must not know what a tensor is for, and reads no weights.
//!
//! A file is a little-endian u64 length, that many bytes of JSON `{name: {dtype, shape, data_offsets}}`, then the data;
//! offsets count from the end of the JSON. <https://huggingface.co/docs/safetensors>

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use gguf::Dtype;
use serde::Deserialize;

use crate::error::Error;

/// Bytes of one JSON header; the format's own limit.
const HEADER_BYTES: u64 = 100_000_000;
/// Tensors of a whole model. Kimi-K2 in FP8 has 139,644.
const TENSORS: usize = 1 << 20;

/// A tensor in a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The file it is in.
    pub path: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// The type's name in the file, `BF16` for example.
    pub dtype: String,
    /// Outermost dimension first, as PyTorch has it.
    pub shape: Vec<u64>,
}

impl Tensor {
    /// The type as GGUF knows it, for the three this crate reads.
    pub(crate) fn float_type(&self) -> Option<Dtype> {
        match self.dtype.as_str() {
            "F32" => Some(Dtype::F32),
            "F16" => Some(Dtype::F16),
            "BF16" => Some(Dtype::BF16),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The tensors of every `*.safetensors` file in a directory, by name.
///
/// # Errors
/// Names the file whose header is broken, and a tensor that is in two files.
pub fn read_dir(dir: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::NoWeights(dir.to_owned()));
    }
    paths.sort();
    let mut tensors = BTreeMap::new();
    for path in paths {
        for (name, tensor) in read_file(&path)? {
            if tensors.contains_key(&name) {
                return Err(broken(
                    &path,
                    format!("tensor '{name}' is in another file too"),
                ));
            }
            tensors.insert(name, tensor);
        }
        if tensors.len() > TENSORS {
            return Err(broken(&path, format!("more than {TENSORS} tensors")));
        }
    }
    Ok(tensors)
}

fn broken(path: &Path, problem: impl Into<String>) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let file_len = file.metadata().map_err(Error::io(path))?.len();
    read_header(file, file_len, path)
}

/// The tensors that the header at the beginning of `file` lists, by name; `path` is what errors call it.
///
/// # Errors
/// Names the file, and the tensor where it is one's fault.
pub fn read_header(
    mut file: impl Read,
    file_len: u64,
    path: &Path,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| broken(path, "too short to be a safetensors file"))?;
    let header_len = u64::from_le_bytes(length);
    if header_len > HEADER_BYTES || header_len > file_len.saturating_sub(8) {
        return Err(broken(
            path,
            format!("announces a header of {header_len} bytes in a file of {file_len}"),
        ));
    }
    let mut json = vec![0; header_len as usize];
    file.read_exact(&mut json).map_err(Error::io(path))?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&json).map_err(|error| Error::Json {
            path: path.to_owned(),
            error,
        })?;

    let data = 8 + header_len;
    let mut tensors = BTreeMap::new();
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(value).map_err(|error| Error::Json {
            path: path.to_owned(),
            error,
        })?;
        let tensor = Tensor {
            path: path.to_owned(),
            offset: check_entry(path, &name, &entry, data, file_len)?,
            bytes: entry.data_offsets[1] - entry.data_offsets[0],
            dtype: entry.dtype,
            shape: entry.shape,
        };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Checks that an entry's bytes are inside the file and as many as its shape needs; returns their start.
fn check_entry(
    path: &Path,
    name: &str,
    entry: &Entry,
    data: u64,
    file_len: u64,
) -> Result<u64, Error> {
    let [start, end] = entry.data_offsets;
    let inside = data.checked_add(end).is_some_and(|end| end <= file_len);
    if start > end || !inside {
        return Err(broken(
            path,
            format!("tensor '{name}' lies at {start}..{end}, outside the file"),
        ));
    }
    let values = entry
        .shape
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim));
    let bytes = match entry.dtype.as_str() {
        "F32" => values.and_then(|values| values.checked_mul(4)),
        "F16" | "BF16" => values.and_then(|values| values.checked_mul(2)),
        // Not readable here; reported by name if it is ever needed.
        _ => Some(end - start),
    };
    if bytes != Some(end - start) {
        return Err(broken(
            path,
            format!(
                "tensor '{name}' of shape {:?} does not have {} bytes",
                entry.shape,
                end - start
            ),
        ));
    }
    Ok(data + start)
}
