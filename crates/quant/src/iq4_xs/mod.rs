//! IQ4_XS: 256 values in 8 sub-blocks of 32 as `d·(s − 32)·level[q]` with s of 6 bits.
//! It must not know the other types.

use gguf::Dtype;

use crate::block::{self, Half};
use crate::kernels::Ladder;
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = block::scalar::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    d: Half,
    /// High 2 bits of scale s in bits 2·s of this little-endian u16.
    scales_h: [u8; 2],
    /// Low 4 bits of the scales, two per byte.
    scales_l: [u8; 4],
    /// 16 bytes per sub-block, nibbles as in Q4_0.
    qs: [[u8; 16]; 8],
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_XS;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.get();
        let scales_h = u16::from_le_bytes(self.scales_h);
        for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = self.scales_l[sub / 2] >> (4 * (sub % 2)) & 15;
            let high = (scales_h >> (2 * sub) & 3) as u8;
            let scale = d * f32::from((low | high << 4) as i8 - 32);
            for (out, q) in out.iter_mut().zip(nibbles::unpack(&self.qs[sub])) {
                *out = scale * f32::from(codebook::IQ4_NL[usize::from(q)]);
            }
        }
    }
}
