//! Value tables that types share, as data of ggml and ik_llama.cpp (both MIT; see LICENSE.tables beside this file). It
//! must not know the types' layouts.
//!
//! The grids of the IQ1, IQ2 and IQ3 types are sets of vectors that were chosen by hand of their makers: no rule gives
//! them. `generate.py` writes them compactly as `*.grid`; they are unpacked here at compile time.

/// The 16 non-linear levels of IQ4_NL and IQ4_XS, denser near zero as trained weights are (ggml-common.h).
pub(crate) const IQ4_NL: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice the 16 values of a 4-bit float with 2 exponent bits and 1 mantissa bit (OCP Microscaling Formats 1.0).
pub(crate) static E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Vectors of eight levels, the first in the lowest byte.
pub(crate) static IQ2_XXS: [u64; 256] = eights(include_bytes!("IQ2_XXS.grid"), &IQ2_LEVELS);
pub(crate) static IQ2_XS: [u64; 512] = eights(include_bytes!("IQ2_XS.grid"), &IQ2_LEVELS);
pub(crate) static IQ2_S: [u64; 1024] = eights(include_bytes!("IQ2_S.grid"), &IQ2_LEVELS);

/// Vectors of eight values −1, 0 or 1, times 8: IQ1_S and IQ1_M add an eighth to each or take it away.
pub(crate) static IQ1: [u64; 2048] = eights(include_bytes!("IQ1_S.grid"), &[-8, 0, 8, 0]);

/// Vectors of four levels, the first in the lowest byte.
pub(crate) static IQ3_XXS: [u32; 256] = fours(
    include_bytes!("IQ3_XXS.grid"),
    &[4, 12, 20, 28, 36, 44, 52, 62],
);
pub(crate) static IQ3_S: [u32; 512] =
    fours(include_bytes!("IQ3_S.grid"), &[1, 3, 5, 7, 9, 11, 13, 15]);

const IQ2_LEVELS: [i8; 4] = [8, 25, 43, 0];

const fn eights<const COUNT: usize>(packed: &[u8], levels: &[i8; 4]) -> [u64; COUNT] {
    assert!(packed.len() == 2 * COUNT);
    let mut vectors = [0; COUNT];
    let mut at = 0;
    while at < COUNT {
        let fields = u16::from_le_bytes([packed[2 * at], packed[2 * at + 1]]);
        let mut element = 0;
        while element < 8 {
            let level = levels[(fields >> (2 * element) & 3) as usize];
            vectors[at] |= (level as u8 as u64) << (8 * element);
            element += 1;
        }
        at += 1;
    }
    vectors
}

const fn fours<const COUNT: usize>(packed: &[u8], levels: &[i8; 8]) -> [u32; COUNT] {
    assert!(packed.len() == 2 * COUNT);
    let mut vectors = [0; COUNT];
    let mut at = 0;
    while at < COUNT {
        let fields = u16::from_le_bytes([packed[2 * at], packed[2 * at + 1]]);
        let mut element = 0;
        while element < 4 {
            let level = levels[(fields >> (3 * element) & 7) as usize];
            vectors[at] |= (level as u8 as u32) << (8 * element);
            element += 1;
        }
        at += 1;
    }
    vectors
}
