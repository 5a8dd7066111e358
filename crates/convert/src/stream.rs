//! The streaming core: slices of source files in, encoded tensors out, a few megabytes in memory at any time.
//! It must not know where slices come from or what tensors mean.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use gguf::{Dtype, Metadata, TensorSpec, Writer};

use crate::error::Error;

/// Values converted at a time: 4 MiB of floats.
const CHUNK_VALUES: u64 = 1 << 20;

/// A matrix inside a source file, rows one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    path: PathBuf,
    offset: u64,
    dtype: Dtype,
    rows: u64,
    columns: u64,
    /// Written column by column.
    transpose: bool,
}

impl Slice {
    pub(crate) fn new(path: &Path, offset: u64, dtype: Dtype, rows: u64, columns: u64) -> Slice {
        Slice {
            path: path.to_owned(),
            offset,
            dtype,
            rows,
            columns,
            transpose: false,
        }
    }

    /// `count` of this slice's rows.
    pub(crate) fn rows(&self, first: u64, count: u64, transpose: bool) -> Slice {
        Slice {
            offset: self.offset + first * self.row_bytes(),
            rows: count,
            transpose,
            ..self.clone()
        }
    }

    fn row_bytes(&self) -> u64 {
        self.dtype.tensor_bytes(&[self.columns]).unwrap_or(0)
    }
}

/// A tensor to write and what it is made of: the slices' values one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) spec: TensorSpec,
    pub(crate) slices: Vec<Slice>,
}

/// Called after each tensor with its name and the tensors done and in all.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Writes a whole GGUF file.
pub(crate) fn write(
    path: &Path,
    metadata: &Metadata,
    outputs: &[Output],
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    appear(path, |part| write_part(part, metadata, outputs, progress))
}

/// Lets `write` make a file beside `path` and moves it there when that succeeds: a file with the final name is whole.
pub(crate) fn appear(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let result = write(&part);
    if result.is_err() {
        // Best effort: the error that matters is the one being returned.
        let _ = std::fs::remove_file(&part);
    }
    result?;
    std::fs::rename(&part, path).map_err(Error::io(path))
}

fn write_part(
    path: &Path,
    metadata: &Metadata,
    outputs: &[Output],
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let failed = |error| Error::Write {
        path: path.to_owned(),
        error,
    };
    let specs: Vec<TensorSpec> = outputs.iter().map(|output| output.spec.clone()).collect();
    let file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(Error::io(path))?);
    let mut writer = Writer::new(file, metadata, &specs).map_err(failed)?;
    let mut sources = Sources::default();
    for (index, output) in outputs.iter().enumerate() {
        for slice in &output.slices {
            write_slice(&mut sources, slice, &output.spec, &mut |bytes| {
                writer.append(&output.spec.name, bytes).map_err(failed)
            })?;
        }
        progress(&output.spec.name, index + 1, outputs.len());
    }
    let file = writer.finish().map_err(failed)?;
    let file = file
        .into_inner()
        .map_err(|error| Error::io(path)(error.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// The source file read last, kept open: neighbouring slices mostly come from one file.
#[derive(Default)]
struct Sources {
    open: Option<(PathBuf, File)>,
}

impl Sources {
    fn read(&mut self, path: &Path, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            self.open = Some((path.to_owned(), File::open(path).map_err(Error::io(path))?));
        }
        if let Some((_, file)) = &mut self.open {
            file.seek(SeekFrom::Start(offset))
                .map_err(Error::io(path))?;
            file.read_exact(bytes).map_err(Error::io(path))?;
        }
        Ok(())
    }
}

fn write_slice(
    sources: &mut Sources,
    slice: &Slice,
    target: &TensorSpec,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    // A transposed slice is one head of a small matrix and is read whole; any other goes by chunks of rows.
    let rows_at_once = if slice.transpose {
        slice.rows
    } else {
        (CHUNK_VALUES / slice.columns).max(1)
    };
    let mut row = 0;
    while row < slice.rows {
        let count = rows_at_once.min(slice.rows - row);
        let mut values = read_values(sources, slice, row, count, &target.name)?;
        if slice.transpose {
            values = transposed(&values, slice.columns as usize);
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite(target.name.clone()));
        }
        let encoded =
            quant::quantize(target.dtype, &values).ok_or(Error::TargetType(target.dtype))?;
        emit(&encoded)?;
        row += count;
    }
    Ok(())
}

/// Rows `first..first + count` as floats.
fn read_values(
    sources: &mut Sources,
    slice: &Slice,
    first: u64,
    count: u64,
    name: &str,
) -> Result<Vec<f32>, Error> {
    let unreadable = || Error::SourceType {
        tensor: name.to_owned(),
        dtype: slice.dtype.name().to_owned(),
    };
    let kernels = quant::kernels(slice.dtype).ok_or_else(unreadable)?;
    let row_bytes = slice.row_bytes();
    let mut bytes = vec![0; (count * row_bytes) as usize];
    sources.read(&slice.path, slice.offset + first * row_bytes, &mut bytes)?;
    let columns = slice.columns as usize;
    let mut values = vec![0.0; count as usize * columns];
    for (row, values) in bytes
        .chunks(row_bytes as usize)
        .zip(values.chunks_mut(columns))
    {
        (kernels.dequantize)(row, values);
    }
    Ok(values)
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| values.iter().skip(column).step_by(columns).copied())
        .collect()
}
