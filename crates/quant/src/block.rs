//! What every block type shares: seeing a row of bytes as blocks, and the scalar reference built from one decoder.
//! It must not know any type's layout.

use bytemuck::Pod;
use gguf::Dtype;

use crate::cpu::Isa;
use crate::int8::{self, Activations, Int8, Rows};
use crate::kernels::{Kernels, Ladder};

/// A block of `N` values. Implementors are `repr(C)` structs of bytes, so alignment is 1 and a row of any address
/// can be seen as blocks; [`scalar`] checks at compile time that their size is the table's.
pub(crate) trait Block<const N: usize>: Pod {
    const DTYPE: Dtype;

    /// The block's values, exactly as the reference implementation rounds them.
    fn decode(&self, out: &mut [f32; N]);
}

/// An IEEE half as stored in a block: little-endian, unaligned.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Half([u8; 2]);

impl Half {
    pub(crate) fn new(value: f32) -> Half {
        Half(half::f16::from_f32(value).to_le_bytes())
    }

    /// A half that is not stored as two neighbouring bytes.
    #[inline]
    pub(crate) fn from_bits(bits: u16) -> Half {
        Half(bits.to_le_bytes())
    }

    #[inline]
    pub(crate) fn bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }

    /// Without branches or calls, so that kernels keep their sums in registers.
    #[inline]
    pub(crate) fn get(self) -> f32 {
        let bits = u32::from(self.bits());
        let (sign, rest) = ((bits & 0x8000) << 16, bits & 0x7fff);
        // The half's bits read as a float are 2^112 times too small, subnormal ones too: the product is exact.
        let finite = f32::from_bits(rest << 13) * f32::from_bits((127 + 112) << 23);
        let magnitude = if rest < 0x7c00 {
            finite.to_bits()
        } else {
            0x7f80_0000 | rest << 13
        };
        f32::from_bits(sign | magnitude)
    }
}

/// The whole blocks of a row; bytes beyond the last whole block are ignored.
pub(crate) fn blocks<B: Pod>(row: &[u8]) -> &[B] {
    let whole = row.len() / size_of::<B>() * size_of::<B>();
    bytemuck::cast_slice(&row[..whole])
}

/// The blocks of a row that no scale precedes.
pub(crate) fn plain<B: Pod>(row: &[u8]) -> (f32, &[B]) {
    (1.0, blocks(row))
}

/// The reference kernels of a block type.
pub(crate) const fn scalar<B: Block<N>, const N: usize>() -> Ladder {
    assert!(size_of::<B>() == B::DTYPE.block_bytes());
    assert!(align_of::<B>() == 1);
    assert!(N == B::DTYPE.block_values());
    Ladder::new(Kernels {
        dtype: B::DTYPE,
        isa: Isa::Scalar,
        dequantize: dequantize::<B, N>,
        dot: dot::<B, N>,
        int8: Int8::of(N, multiply::<B, N>),
    })
}

fn dequantize<B: Block<N>, const N: usize>(row: &[u8], out: &mut [f32]) {
    for (block, out) in blocks::<B>(row).iter().zip(out.as_chunks_mut().0) {
        block.decode(out);
    }
}

fn dot<B: Block<N>, const N: usize>(row: &[u8], x: &[f32]) -> f32 {
    let mut weights = [0.0; N];
    let mut sum = 0.0;
    for (block, x) in blocks::<B>(row).iter().zip(x.as_chunks::<N>().0) {
        block.decode(&mut weights);
        sum += f64::from(dot_f32(&weights, x));
    }
    sum as f32
}

fn multiply<B: Block<N>, const N: usize>(rows: Rows<'_>, x: &Activations, out: &mut [f32]) {
    let decode = |block: &B, _: f32, out: &mut [f32; N]| block.decode(out);
    int8::multiply(rows, x, out, plain::<B>, decode);
}

/// Dot product of a row of plain values (one value a block) of `bytes` bytes each, decoded 64 at a time.
pub(crate) fn dot_plain(
    bytes: usize,
    dequantize: fn(&[u8], &mut [f32]),
    row: &[u8],
    x: &[f32],
) -> f32 {
    let mut weights = [0.0; 64];
    let mut sum = 0.0;
    for (row, x) in row.chunks(64 * bytes).zip(x.chunks(64)) {
        let count = x.len().min(row.len() / bytes);
        dequantize(row, &mut weights[..count]);
        sum += f64::from(dot_f32(&weights[..count], &x[..count]));
    }
    sum as f32
}

/// Dot product of two short rows in eight partial sums, a shape every compiler vectorizes.
pub(crate) fn dot_f32(weights: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (whole_w, rest_w) = weights.as_chunks::<8>();
    let (whole_x, rest_x) = x.as_chunks::<8>();
    for (w, x) in whole_w.iter().zip(whole_x) {
        for lane in 0..8 {
            lanes[lane] += w[lane] * x[lane];
        }
    }
    let rest: f32 = rest_w.iter().zip(rest_x).map(|(w, x)| w * x).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_those_of_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (Half::from_bits(bits).get(), half::f16::from_bits(bits));
            if theirs.is_nan() {
                assert!(ours.is_nan(), "{bits:#x}");
            } else {
                assert_eq!(ours.to_bits(), theirs.to_f32().to_bits(), "{bits:#x}");
            }
        }
    }
}
