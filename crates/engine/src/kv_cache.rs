//! What attention remembers: per token and layer one row of the compressed keys and values and the
//! rotary key, shared by all heads. It must not know attention's arithmetic.

use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

use crate::config::Config;

/// How rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheType {
    /// Half the memory; what is served with.
    F16,
    /// For comparison with references to the last digits.
    F32,
}

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
    /// Bits of f16: `vec![0u16]` is allocated lazily, a vector of f16 is not.
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl KvCache {
    pub(crate) fn new(config: &Config, capacity: usize, kind: CacheType) -> Self {
        let row = config.kv_row();
        let layer = || match kind {
            CacheType::F16 => Rows::F16(vec![0; capacity * row]),
            CacheType::F32 => Rows::F32(vec![0.0; capacity * row]),
        };
        Self {
            layers: (0..config.layers).map(|_| layer()).collect(),
            row,
            capacity,
            len: 0,
        }
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
            Rows::F16(bits) => {
                bits[range]
                    .reinterpret_cast_mut::<f16>()
                    .convert_from_f32_slice(rows);
            }
            Rows::F32(values) => values[range].copy_from_slice(rows),
        }
    }

    /// Reads `out.len() / row` rows of a layer from position `at`.
    pub(crate) fn read(&self, layer: usize, at: usize, out: &mut [f32]) {
        let range = at * self.row..at * self.row + out.len();
        match &self.layers[layer] {
            Rows::F16(bits) => bits[range]
                .reinterpret_cast::<f16>()
                .convert_to_f32_slice(out),
            Rows::F32(values) => out.copy_from_slice(&values[range]),
        }
    }
}
