//! Splitting a model into shards (or joining a split one into fewer): tensor bytes are copied, never re-encoded.
//! It must not know what tensors mean.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gguf::shard::{self, COUNT_KEY, NO_KEY, TENSORS_KEY};
use gguf::{Header, Metadata, TensorInfo, TensorSpec, Value, Writer, limits};

use crate::error::Error;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// Writes the model at `input` (a file, or any shard of a set) as `<prefix>-00001-of-0000N.gguf` and so on.
///
/// Tensors keep their order; shards are as equal in bytes as whole tensors allow and none is empty. Shard 1 has all
/// metadata, the others only the `split.*` keys. Returns the paths written.
///
/// # Errors
/// When the input is not a whole model, `shards` is 0 or above the number of tensors, or I/O fails.
pub fn split(input: &Path, prefix: &Path, shards: u32) -> Result<Vec<PathBuf>, Error> {
    let paths = shard::find_shards(input)?;
    let headers: Vec<Header> = paths
        .iter()
        .map(|path| gguf::open_header(path))
        .collect::<Result<_, _>>()?;
    shard::check_set(&headers)?;
    let tensors: Vec<Placed<'_>> = paths
        .iter()
        .zip(&headers)
        .flat_map(|(path, header)| {
            header.tensors.iter().map(move |info| Placed {
                path,
                start: header.data_offset + info.offset,
                info,
            })
        })
        .collect();
    if shards == 0 || shards > limits::SHARDS || shards as usize > tensors.len() {
        return Err(Error::Shards {
            shards,
            tensors: tensors.len(),
            limit: limits::SHARDS,
        });
    }
    let sizes: Vec<u64> = tensors.iter().map(|tensor| tensor.info.bytes).collect();
    let mut written = Vec::new();
    let mut rest = tensors.as_slice();
    for (index, count) in shard_lengths(&sizes, shards as usize)
        .into_iter()
        .enumerate()
    {
        let (own, others) = rest.split_at(count);
        rest = others;
        let metadata = shard_metadata(&headers[0].metadata, index as u32, shards, tensors.len());
        let path = shard_path(prefix, index as u32 + 1, shards);
        write_shard(&path, &metadata, own)?;
        written.push(path);
    }
    Ok(written)
}

/// A tensor and where its bytes are.
struct Placed<'a> {
    path: &'a Path,
    /// Bytes from the start of the file.
    start: u64,
    info: &'a TensorInfo,
}

/// How many tensors each shard gets: a shard ends with the tensor that reaches its share of all bytes, and leaves at
/// least one tensor for each shard after it.
fn shard_lengths(sizes: &[u64], shards: usize) -> Vec<usize> {
    let total: u128 = sizes.iter().map(|size| u128::from(*size)).sum();
    let mut lengths = Vec::with_capacity(shards);
    let (mut next, mut done) = (0, 0u128);
    for shard in 1..=shards {
        let first = next;
        let last_allowed = sizes.len() - (shards - shard);
        while next < last_allowed
            && (next == first || done * (shards as u128) < total * (shard as u128))
        {
            done += u128::from(sizes[next]);
            next += 1;
        }
        lengths.push(next - first);
    }
    lengths
}

fn shard_metadata(full: &Metadata, index: u32, count: u32, tensors: usize) -> Metadata {
    let mut metadata = Metadata::new();
    if index == 0 {
        metadata = full.clone();
    } else if let Some(alignment) = full.get("general.alignment") {
        // Offsets depend on it, so every shard must say it.
        metadata.set("general.alignment", alignment.clone());
    }
    // Both fit: `split` has checked them against the limits.
    metadata.set(NO_KEY, Value::U16(index as u16));
    metadata.set(COUNT_KEY, Value::U16(count as u16));
    metadata.set(TENSORS_KEY, Value::I32(tensors as i32));
    metadata
}

/// `<prefix>-00001-of-00003.gguf`; the prefix may hold directories.
fn shard_path(prefix: &Path, no: u32, count: u32) -> PathBuf {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    prefix.with_file_name(shard::name(&name, no, count))
}

fn write_shard(path: &Path, metadata: &Metadata, tensors: &[Placed<'_>]) -> Result<(), Error> {
    let failed = |error| Error::Write {
        path: path.to_owned(),
        error,
    };
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.info.name.clone(),
            dims: tensor.info.dims.clone(),
            dtype: tensor.info.dtype,
        })
        .collect();
    let file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    let mut writer = Writer::new(file, metadata, &specs).map_err(failed)?;
    for tensor in tensors {
        copy_tensor(tensor, &mut |bytes| {
            writer.append(&tensor.info.name, bytes).map_err(failed)
        })?;
    }
    let mut file = writer.finish().map_err(failed)?;
    file.flush().map_err(Error::io(path))?;
    file.get_ref().sync_all().map_err(Error::io(path))
}

fn copy_tensor(
    tensor: &Placed<'_>,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = File::open(tensor.path).map_err(Error::io(tensor.path))?;
    file.seek(SeekFrom::Start(tensor.start))
        .map_err(Error::io(tensor.path))?;
    let mut left = tensor.info.bytes;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let want = left.min(CHUNK as u64) as usize;
        let got = file
            .read(&mut buffer[..want])
            .map_err(Error::io(tensor.path))?;
        if got == 0 {
            return Err(Error::io(tensor.path)(io::ErrorKind::UnexpectedEof.into()));
        }
        emit(&buffer[..got])?;
        left -= got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_balanced_and_never_empty() {
        assert_eq!(shard_lengths(&[10, 10, 10, 10, 10, 10], 3), [2, 2, 2]);
        assert_eq!(shard_lengths(&[100, 1, 1], 3), [1, 1, 1]);
        assert_eq!(shard_lengths(&[1, 1, 100], 2), [2, 1]);
        assert_eq!(shard_lengths(&[1, 1, 100, 1], 2), [3, 1]);
        assert_eq!(shard_lengths(&[5], 1), [1]);
    }
}
