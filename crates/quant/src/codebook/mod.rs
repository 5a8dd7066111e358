//! Value tables that types share, as data of ggml and ik_llama.cpp (both MIT; see LICENSE.tables beside this file). It
//! must not know the types' layouts.
//!
//! The grids of the IQ1, IQ2 and IQ3 types are sets of vectors that were chosen by hand of their makers: no rule gives
//! them. `generate.py` writes them compactly as `*.grid`; they are unpacked here at compile time.

/// The 16 non-linear levels of IQ4_NL and IQ4_XS, denser near zero as trained weights are (ggml-common.h).
pub(crate) const IQ4_NL: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Two tables of levels, the second a little higher: blocks of IQ2_K, IQ3_K, IQ4_K, IQ5_K and their relatives choose one.
/// Those of fewer levels are filled up to 16, those of 32 are in two parts.
pub(crate) static IQ2_K: [[i8; 16]; 2] = [
    [-31, -13, 1, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [-26, -8, 6, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];
pub(crate) static IQ3_K: [[i8; 16]; 2] = [
    [-63, -40, -23, -10, 1, 13, 28, 47, 0, 0, 0, 0, 0, 0, 0, 0],
    [-59, -36, -19, -6, 5, 17, 32, 51, 0, 0, 0, 0, 0, 0, 0, 0],
];
pub(crate) static IQ4_K: [[i8; 16]; 2] = [
    IQ4_NL,
    [
        -123, -100, -79, -61, -45, -31, -18, -6, 5, 17, 29, 42, 57, 73, 93, 117,
    ],
];
pub(crate) static IQ5_K: [[[i8; 16]; 2]; 2] = [
    [
        [
            -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6,
        ],
        [
            -1, 5, 11, 17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121,
        ],
    ],
    [
        [
            -124, -112, -101, -90, -81, -72, -63, -55, -48, -41, -34, -28, -22, -16, -10, -4,
        ],
        [
            1, 7, 13, 19, 25, 31, 38, 45, 53, 61, 70, 79, 89, 99, 111, 123,
        ],
    ],
];

/// The pairs of levels of IQ2_KL, first and second levels apart, each in two parts.
pub(crate) static IQ2_KL: [[[i8; 16]; 2]; 2] = apart(&[
    [-63, -23],
    [-63, 13],
    [-40, -63],
    [-40, -10],
    [-40, 13],
    [-40, 47],
    [-23, -40],
    [-23, -23],
    [-23, 1],
    [-23, 13],
    [-23, 28],
    [-10, -63],
    [-10, 1],
    [-10, 13],
    [-10, 47],
    [1, -23],
    [1, -10],
    [1, 1],
    [1, 13],
    [1, 28],
    [13, -40],
    [13, -23],
    [13, -10],
    [13, 1],
    [13, 13],
    [28, -63],
    [28, -23],
    [28, 1],
    [28, 28],
    [28, 47],
    [47, -23],
    [47, 13],
]);

const fn apart(pairs: &[[i8; 2]; 32]) -> [[[i8; 16]; 2]; 2] {
    let mut tables = [[[0; 16]; 2]; 2];
    let mut at = 0;
    while at < 32 {
        tables[0][at / 16][at % 16] = pairs[at][0];
        tables[1][at / 16][at % 16] = pairs[at][1];
        at += 1;
    }
    tables
}

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
