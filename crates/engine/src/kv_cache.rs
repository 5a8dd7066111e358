//! What attention remembers: per token and layer one row of the compressed keys and values and the
//! rotary key, shared by all heads. It must not know attention's arithmetic.

use std::ops::Range;

use gguf::Dtype;
use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use quant::Kernels;
use sizing::CacheType;

use crate::{Error, config::Config};

/// The memory of one conversation.
pub(crate) struct KvCache {
    layers: Vec<Rows>,
    /// Values per row.
    row: usize,
    capacity: usize,
    len: usize,
}

/// Rows of one layer, `capacity × row` values. Zeroed by the allocator, so that untouched rows take
/// no memory.
enum Rows {
    F32(Vec<f32>),
    /// Bits of f16: `vec![0u16]` is allocated lazily, a vector of f16 is not.
    F16(Vec<u16>),
    /// Whole blocks: a row is a multiple of a block.
    Blocks {
        bytes: Vec<u8>,
        dtype: Dtype,
        row_bytes: usize,
        kernels: &'static Kernels,
    },
}

impl KvCache {
    /// Room for `capacity` tokens.
    ///
    /// # Errors
    /// [`Error::Options`] when the model's rows are no whole blocks of the type.
    pub(crate) fn new(config: &Config, capacity: usize, kind: CacheType) -> Result<Self, Error> {
        let row = config.kv_row();
        let layers = (0..config.layers).map(|_| Rows::new(row, capacity, kind));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            row,
            capacity,
            len: 0,
        })
    }

    /// Tokens remembered.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Tokens that still fit.
    pub(crate) fn free(&self) -> usize {
        self.capacity - self.len
    }

    /// Forgets all tokens from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes `tokens` rows written by [`KvCache::write`] part of the memory.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len = (self.len + tokens).min(self.capacity);
    }

    /// Writes rows (`n × row` values) of a layer at position `at`; they must fit.
    pub(crate) fn write(&mut self, layer: usize, at: usize, rows: &[f32]) {
        let range = at * self.row..at * self.row + rows.len();
        match &mut self.layers[layer] {
            Rows::F32(values) => values[range].copy_from_slice(rows),
            Rows::F16(bits) => bits[range]
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(rows),
            Rows::Blocks {
                bytes,
                dtype,
                row_bytes,
                ..
            } => {
                // That rows can be encoded is what `Rows::new` found out.
                let encoded = quant::quantize(*dtype, rows).unwrap_or_default();
                bytes[at * *row_bytes..][..encoded.len()].copy_from_slice(&encoded);
            }
        }
    }

    /// Reads `out.len() / row` rows of a layer from position `at`.
    pub(crate) fn read(&self, layer: usize, at: usize, out: &mut [f32]) {
        let range = at * self.row..at * self.row + out.len();
        match &self.layers[layer] {
            Rows::F32(values) => out.copy_from_slice(&values[range]),
            Rows::F16(bits) => bits[range]
                .reinterpret_cast::<f16>()
                .convert_to_f32_slice(out),
            Rows::Blocks {
                bytes,
                row_bytes,
                kernels,
                ..
            } => {
                let rows = out.len() / self.row;
                (kernels.dequantize)(&bytes[at * row_bytes..(at + rows) * row_bytes], out);
            }
        }
    }

    /// Takes over the rows of `tokens` from another cache of the same model and type, in place of its
    /// own from there on. Both must have the tokens before them in common.
    pub(crate) fn copy_from(&mut self, other: &Self, tokens: Range<usize>) {
        let values = tokens.start * self.row..tokens.end * self.row;
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            match (to, from) {
                (Rows::F32(to), Rows::F32(from)) => {
                    to[values.clone()].copy_from_slice(&from[values.clone()]);
                }
                (Rows::F16(to), Rows::F16(from)) => {
                    to[values.clone()].copy_from_slice(&from[values.clone()]);
                }
                (
                    Rows::Blocks {
                        bytes, row_bytes, ..
                    },
                    Rows::Blocks { bytes: from, .. },
                ) => {
                    let range = tokens.start * *row_bytes..tokens.end * *row_bytes;
                    bytes[range.clone()].copy_from_slice(&from[range]);
                }
                // Another type: these tokens are computed instead.
                _ => return self.truncate(tokens.start),
            }
        }
        self.len = tokens.end;
    }

    /// Bytes allocated for rows.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |rows: &Rows| match rows {
            Rows::F32(values) => size_of_val(values.as_slice()),
            Rows::F16(bits) => size_of_val(bits.as_slice()),
            Rows::Blocks { bytes, .. } => bytes.len(),
        };
        self.layers.iter().map(bytes).sum()
    }
}

impl Rows {
    fn new(row: usize, capacity: usize, kind: CacheType) -> Result<Self, Error> {
        let dtype = kind.dtype();
        Ok(match kind {
            CacheType::F32 => Self::F32(vec![0.0; capacity * row]),
            CacheType::F16 => Self::F16(vec![0; capacity * row]),
            CacheType::Q8_0 => {
                let encoded = quant::quantize(dtype, &vec![0.0; row]);
                let (Some(encoded), Some(kernels)) = (encoded, quant::kernels(dtype)) else {
                    return Err(Error::Options(format!(
                        "a KV cache of type {kind} holds blocks of {} values, and this model's rows \
                         have {row}; use f16",
                        dtype.block_values()
                    )));
                };
                let row_bytes = encoded.len();
                Self::Blocks {
                    bytes: vec![0; capacity * row_bytes],
                    dtype,
                    row_bytes,
                    kernels,
                }
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{noise, small_config};

    #[test]
    fn rows_come_back_as_exactly_as_their_type_keeps_them() {
        let config = small_config();
        let rows = noise(3 * config.kv_row(), 1);
        // Largest value 1: f16 keeps 11 bits, q8_0 steps of 1/127 of a block's largest.
        for (kind, worst) in [
            (CacheType::F32, 0.0),
            (CacheType::F16, 0.5 / 1024.0),
            (CacheType::Q8_0, 0.55 / 127.0),
        ] {
            let mut cache = KvCache::new(&config, 8, kind).unwrap();
            cache.write(1, 2, &rows[..config.kv_row()]);
            cache.write(1, 3, &rows[config.kv_row()..]);
            let mut back = vec![0.0; rows.len()];
            cache.read(1, 2, &mut back);
            let found = rows
                .iter()
                .zip(&back)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(found <= worst, "{kind}: {found}");
        }
    }

    #[test]
    fn rows_of_another_cache_are_taken_over_as_they_are() {
        let config = small_config();
        let rows = noise(4 * config.kv_row(), 1);
        for kind in CacheType::ALL {
            let mut from = KvCache::new(&config, 8, kind).unwrap();
            from.write(1, 0, &rows);
            from.advance(4);
            let mut to = KvCache::new(&config, 8, kind).unwrap();
            to.advance(6);
            to.copy_from(&from, 1..3);
            assert_eq!(to.len(), 3);
            let read = |cache: &KvCache, at: usize| {
                let mut row = vec![0.0; config.kv_row()];
                cache.read(1, at, &mut row);
                row
            };
            for at in 1..3 {
                assert_eq!(read(&to, at), read(&from, at), "{kind}");
            }
            assert_ne!(read(&to, 3), read(&from, 3));
        }
    }

    #[test]
    fn takes_the_bytes_that_were_planned() {
        let config = small_config();
        for kind in CacheType::ALL {
            let planned = sizing::kv_cache::bytes(&config.hyper(100), 37, kind);
            let cache = KvCache::new(&config, 37, kind).unwrap();
            assert_eq!(cache.bytes() as u64, planned, "{kind}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_refused() {
        let config = Config {
            kv_lora: 40,
            ..small_config()
        };
        let error = KvCache::new(&config, 1, CacheType::Q8_0).err().unwrap();
        assert!(error.to_string().contains("use f16"), "{error}");
        assert!(KvCache::new(&config, 1, CacheType::F16).is_ok());
    }
}
