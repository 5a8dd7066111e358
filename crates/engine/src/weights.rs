//! The files of a model as memory, and checked views of the tensors in them. The one place of the
//! engine with `unsafe`. It must not know what any tensor is for.

use std::{collections::HashMap, fs::File, sync::Arc};

use gguf::{Dtype, Header, TensorInfo};
use memmap2::{Advice, Mmap};
use quant::{Activations, Grain, Int8, Kernels, Rows};

use crate::{ActivationType, Error, Files, Progress};

/// Bytes read between two heartbeats of the load.
const READ_AHEAD: usize = 16 << 20;

/// The smallest page: reading one byte of each brings a file into memory.
const PAGE: usize = 4096;

/// All tensors of all shards.
pub(crate) struct Weights {
    shards: Vec<Arc<Mmap>>,
    tensors: HashMap<String, Placed>,
    activations: ActivationType,
}

struct Placed {
    info: TensorInfo,
    shard: usize,
    /// Where the tensor begins in its file; the end was checked against the file's length.
    start: usize,
}

impl Weights {
    /// Maps the files whose headers these are, for products with activations of that type.
    ///
    /// # Errors
    /// [`Error::Map`] when a file cannot be mapped or is shorter than its header says.
    pub(crate) fn map(
        files: &Files,
        headers: &[Header],
        activations: ActivationType,
    ) -> Result<Self, Error> {
        let mut weights = Self {
            shards: Vec::new(),
            tensors: HashMap::new(),
            activations,
        };
        for (shard, (path, header)) in files.paths().zip(headers).enumerate() {
            let failed = |source| Error::Map {
                path: path.to_owned(),
                source,
            };
            let file = File::open(path).map_err(failed)?;
            // SAFETY: the mapping is read-only and private. Its bytes change only if somebody writes
            // the file meanwhile, which nothing of ours does: fetched files are renamed into place
            // when whole, and `Files::changed` tells who did. Truncation would end the process by SIGBUS, not
            // corrupt it.
            let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
            for info in &header.tensors {
                let range = header
                    .data_offset
                    .checked_add(info.offset)
                    .and_then(|start| Some((start, start.checked_add(info.bytes)?)))
                    .filter(|(_, end)| *end <= map.len() as u64);
                let Some((start, _)) = range else {
                    let detail = format!("tensor '{}' ends beyond the file", info.name);
                    return Err(failed(std::io::Error::other(detail)));
                };
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                weights.tensors.insert(
                    info.name.clone(),
                    Placed {
                        info: info.clone(),
                        shard,
                        start,
                    },
                );
            }
            weights.shards.push(Arc::new(map));
        }
        Ok(weights)
    }

    /// Bytes of all tensors.
    pub(crate) fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.info.bytes).sum()
    }

    /// Values of all tensors.
    pub(crate) fn parameters(&self) -> u64 {
        self.tensors
            .values()
            .map(|tensor| tensor.info.values())
            .sum()
    }

    /// The type most bytes are in.
    pub(crate) fn main_dtype(&self) -> Option<Dtype> {
        let mut bytes: HashMap<Dtype, u64> = HashMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(tensor.info.dtype).or_default() += tensor.info.bytes;
        }
        bytes
            .into_iter()
            .max_by_key(|(dtype, bytes)| (*bytes, *dtype))
            .map(|(dtype, _)| dtype)
    }

    /// Reads every page once, so that the first request does not wait for the disk. Worth it only
    /// when the model fits in memory.
    pub(crate) fn read_ahead(&self, progress: &Progress) {
        progress.set_total(self.shards.iter().map(|map| map.len() as u64).sum());
        for map in &self.shards {
            // Advice only: without it the loop below is slower, not wrong.
            let _ = map.advise(Advice::WillNeed);
            for chunk in map.chunks(READ_AHEAD) {
                let sum = chunk.iter().step_by(PAGE).fold(0u8, |sum, byte| sum ^ byte);
                std::hint::black_box(sum);
                progress.add_loaded(chunk.len() as u64);
            }
        }
    }

    /// Has the kernel read only what is asked for: by itself it reads far ahead of every fault, and most of that belongs
    /// to experts that the token was not sent to. Asks for the tensors that `always` says are needed for every token.
    pub(crate) fn read_on_demand(&self, always: impl Fn(&str) -> bool) {
        // Advice only: without it the disk reads more, not other data.
        for map in &self.shards {
            let _ = map.advise(Advice::Random);
        }
        for (name, tensor) in &self.tensors {
            let len = usize::try_from(tensor.info.bytes).unwrap_or(0);
            if always(name) {
                let _ = self.shards[tensor.shard].advise_range(Advice::WillNeed, tensor.start, len);
            }
        }
    }

    /// What the headers say of every tensor, in no order.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values().map(|tensor| &tensor.info)
    }

    /// A tensor of whatever shape the file gives it, as the rows of one matrix.
    pub(crate) fn whole(&self, name: &str) -> Result<Matrix, Error> {
        let dims: Vec<usize> = self
            .tensors
            .get(name)
            .map(|tensor| tensor.info.dims.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX))
            .collect();
        self.checked(name, &dims)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A matrix of `rows` rows of `cols` values.
    pub(crate) fn matrix(&self, name: &str, cols: usize, rows: usize) -> Result<Matrix, Error> {
        self.checked(name, &[cols, rows])
    }

    /// `count` matrices of `rows` rows of `cols` values, one after the other, as one of all rows. The two outer
    /// dimensions may be written as one, which ik_llama.cpp does with k_b and v_b.
    pub(crate) fn joined(
        &self,
        name: &str,
        cols: usize,
        rows: usize,
        count: usize,
    ) -> Result<Matrix, Error> {
        let flat = [cols, rows * count];
        match self.tensors.get(name) {
            Some(placed) if placed.info.dims.len() == 2 && count > 1 => self.checked(name, &flat),
            _ => self.checked(name, &[cols, rows, count]),
        }
    }

    /// A vector of floats, decoded.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let matrix = self.checked(name, &[len])?;
        let mut values = vec![0.0; len];
        matrix.view().decode_row(0, &mut values);
        Ok(values)
    }

    fn checked(&self, name: &str, dims: &[usize]) -> Result<Matrix, Error> {
        let placed = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor(name.to_owned()))?;
        let info = &placed.info;
        let wanted: Vec<u64> = dims.iter().map(|dim| *dim as u64).collect();
        // Writers drop or add trailing ones.
        let significant = |dims: &[u64]| {
            let len = dims
                .iter()
                .rposition(|dim| *dim != 1)
                .map_or(0, |at| at + 1);
            dims[..len].to_vec()
        };
        if significant(&info.dims) != significant(&wanted) {
            return Err(Error::Shape {
                tensor: name.to_owned(),
                found: info.dims.clone(),
                wanted,
            });
        }
        let unsupported = || Error::UnsupportedTensorType {
            tensor: name.to_owned(),
            dtype: info.dtype.name(),
        };
        let kernels = quant::kernels(info.dtype).ok_or_else(unsupported)?;
        let cols = dims.first().copied().unwrap_or(1);
        let row_bytes = info.dtype.row_bytes(cols).ok_or_else(unsupported)?;
        let storage = Storage::Mapped {
            map: self.shards[placed.shard].clone(),
            start: placed.start,
        };
        Ok(Matrix {
            storage,
            kernels,
            int8: match self.activations {
                ActivationType::Int8 => kernels.int8.as_ref(),
                ActivationType::F32 => None,
            },
            cols,
            rows: dims.iter().skip(1).product(),
            row_bytes,
        })
    }
}

/// Rows of one tensor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Matrix {
    storage: Storage,
    kernels: &'static Kernels,
    int8: Option<&'static Int8>,
    cols: usize,
    rows: usize,
    row_bytes: usize,
}

#[derive(Clone)]
enum Storage {
    Mapped {
        map: Arc<Mmap>,
        start: usize,
    },
    /// Made at load, as the transposed key projection of legacy files.
    Owned(Arc<[u8]>),
}

impl Matrix {
    /// A matrix of floats made at load.
    pub(crate) fn from_floats(values: &[f32], cols: usize) -> Result<Self, Error> {
        let kernels = quant::kernels(Dtype::F32);
        let bytes = quant::quantize(Dtype::F32, values);
        let (Some(kernels), Some(bytes)) = (kernels, bytes) else {
            return Err(Error::UnsupportedTensorType {
                tensor: "made at load".to_owned(),
                dtype: Dtype::F32.name(),
            });
        };
        let (rows, row_bytes) = (values.len() / cols, cols * size_of::<f32>());
        Ok(Self {
            storage: Storage::Owned(bytes.into()),
            kernels,
            int8: None,
            cols,
            rows,
            row_bytes,
        })
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.part(0, self.rows)
    }

    /// Some of the rows.
    fn part(&self, first: usize, rows: usize) -> View<'_> {
        let bytes: &[u8] = match &self.storage {
            Storage::Mapped { map, start } => &map[*start..],
            Storage::Owned(bytes) => bytes,
        };
        let range = first * self.row_bytes..(first + rows) * self.row_bytes;
        View {
            bytes: &bytes[range],
            kernels: self.kernels,
            int8: self.int8,
            cols: self.cols,
            row_bytes: self.row_bytes,
        }
    }

    /// Has the disk bring some of the rows, without waiting for them.
    fn request(&self, first: usize, rows: usize) {
        if let Storage::Mapped { map, start } = &self.storage {
            let (first, len) = (start + first * self.row_bytes, rows * self.row_bytes);
            // Advice only: without it the rows come when they are touched.
            let _ = map.advise_range(Advice::WillNeed, first, len);
        }
    }

    /// As matrices of `rows` rows each, which begin `first` rows into every `stride` rows.
    pub(crate) fn into_stack(self, first: usize, rows: usize, stride: usize) -> Stack {
        Stack::Joined {
            all: self,
            first,
            rows,
            stride,
        }
    }
}

/// Matrices of one shape: one per head or per expert.
#[derive(Clone)]
pub(crate) enum Stack {
    /// Rows of one tensor.
    Joined {
        all: Matrix,
        /// In each stride, where the matrix begins and how many rows it has.
        first: usize,
        rows: usize,
        stride: usize,
    },
    /// A tensor each; their types may differ.
    Apart(Arc<[Matrix]>),
}

impl Stack {
    /// The matrix of head or expert `index`, which must be one of those there are.
    pub(crate) fn view(&self, index: usize) -> View<'_> {
        match self {
            Self::Joined {
                all,
                first,
                rows,
                stride,
            } => all.part(index * stride + first, *rows),
            Self::Apart(matrices) => matrices[index].view(),
        }
    }

    /// Has the disk bring the matrix of expert `index`, without waiting for it.
    pub(crate) fn request(&self, index: usize) {
        match self {
            Self::Joined {
                all,
                first,
                rows,
                stride,
            } => all.request(index * stride + first, *rows),
            Self::Apart(matrices) => matrices[index].request(0, matrices[index].rows),
        }
    }
}

/// A matrix to compute with.
#[derive(Clone, Copy)]
pub(crate) struct View<'w> {
    bytes: &'w [u8],
    kernels: &'static Kernels,
    int8: Option<&'static Int8>,
    pub(crate) cols: usize,
    row_bytes: usize,
}

impl<'w> View<'w> {
    pub(crate) fn rows(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    fn row(&self, row: usize) -> &'w [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    /// Σ row\[i\]·x\[i\].
    pub(crate) fn dot(&self, row: usize, x: &[f32]) -> f32 {
        (self.kernels.dot)(self.row(row), x)
    }

    /// The grain of the activations that [`View::multiply`] takes; `None` where they stay floats.
    pub(crate) fn grain(&self) -> Option<Grain> {
        self.int8.map(|int8| int8.grain)
    }

    /// out\[t·count + r\] = Σ row first + r\[i\]·token t\[i\] for `count` rows and activations of this view's grain.
    pub(crate) fn multiply(&self, first: usize, count: usize, x: &Activations, out: &mut [f32]) {
        let rows = &self.bytes[first * self.row_bytes..(first + count) * self.row_bytes];
        match self.int8 {
            Some(int8) => (int8.multiply)(Rows::new(rows, self.row_bytes), x, out),
            None => out.fill(0.0),
        }
    }

    /// The row as floats; `out` has `cols` values.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        (self.kernels.dequantize)(self.row(row), out);
    }
}
