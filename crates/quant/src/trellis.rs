//! The generator behind the trellis types: a seed gives a run of levels that look random and lie as a sum of four uniform
//! numbers does. It must not know how the types keep their seeds.
//!
//! Each step multiplies by a constant, keeps 6 bits of each byte and adds the four up: 0 to 252, less the mean 126.

/// Added to a stored seed, so that none is zero.
pub(crate) const FIRST: u32 = 4096;

const MULTIPLIER: u32 = 0xcbac_1fed;

/// The powers 1 to 8 of the multiplier: a step that does not wait for the one before it.
const POWERS: [u32; 8] = powers();

const fn powers() -> [u32; 8] {
    let mut powers = [MULTIPLIER; 8];
    let mut at = 1;
    while at < 8 {
        powers[at] = powers[at - 1].wrapping_mul(MULTIPLIER);
        at += 1;
    }
    powers
}

/// The first `N` levels of a seed, at most eight.
#[inline(always)]
pub(crate) fn levels<const N: usize>(seed: u32) -> [i8; N] {
    let mut levels = [0; N];
    for (level, power) in levels.iter_mut().zip(POWERS) {
        let sixes = seed.wrapping_mul(power) & 0x3f3f_3f3f;
        // The highest byte of this product is the sum of the four.
        let sum = sixes.wrapping_mul(0x0101_0101) >> 24;
        *level = (sum as i32 - 126) as i8;
    }
    levels
}

/// 32 levels from four little-endian seeds.
#[inline(always)]
pub(crate) fn group(seeds: [[u8; 2]; 4]) -> [i8; 32] {
    let mut all = [0; 32];
    for (eight, seed) in all.as_chunks_mut::<8>().0.iter_mut().zip(seeds) {
        *eight = levels(u32::from(u16::from_le_bytes(seed)) + FIRST);
    }
    all
}
