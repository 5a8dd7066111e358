//! Products with int8 activations: every path against the exact product of what the blocks and the levels say, at odd
//! numbers of blocks, tokens and rows; and a product does not depend on the tokens and rows beside it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{Random, decode, random_row, readable};
use gguf::Dtype;
use quant::{Activations, Grain, Int8, Isa, Rows, kernels_on};

/// The largest weight.
const LARGEST: f32 = 4.0;

/// Rows whose first values are large, so that scales differ between blocks.
fn activations(values: usize, random: &mut Random) -> Vec<f32> {
    (0..values)
        .map(|at| random.float() * if at % 97 == 0 { 20.0 } else { 1.0 })
        .collect()
}

/// What rounding to levels makes of the activations: the definition, once more and plainly.
fn rounded(grain: Grain, x: &[f32]) -> Vec<f32> {
    let block = match grain {
        Grain::Of256 => 256,
        Grain::Of32 => 32,
    };
    x.chunks(block)
        .flat_map(|x| {
            let scale = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
            let inverse = 1.0 / scale;
            x.iter()
                .map(move |x| (x * inverse).round_ties_even() * scale)
        })
        .collect()
}

/// tokens × rows.
fn multiply(int8: Int8, rows: Rows<'_>, x: &[f32], cols: usize) -> Vec<f32> {
    let x = Activations::quantize(int8.grain, x, cols);
    let mut out = vec![f32::NAN; rows.count() * x.tokens()];
    (int8.multiply)(rows, &x, &mut out);
    out
}

/// `count` rows.
fn random_rows(dtype: Dtype, count: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    (0..count)
        .flat_map(|_| random_row(dtype, cols, LARGEST, random))
        .collect()
}

fn check(
    dtype: Dtype,
    isa: Isa,
    [blocks, tokens, rows]: [usize; 3],
    x: &[f32],
    random: &mut Random,
) {
    let Some(int8) = kernels_on(dtype, isa).and_then(|kernels| kernels.int8) else {
        return;
    };
    let cols = blocks * dtype.block_values();
    let bytes = random_rows(dtype, rows, cols, random);
    let row_bytes = bytes.len() / rows;
    let x = &x[..cols * tokens];
    let out = multiply(int8, Rows::new(&bytes, row_bytes), x, cols);
    assert_eq!(out.len(), tokens * rows);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(rows)) {
        let x = rounded(int8.grain, x);
        for (row, out) in bytes.chunks_exact(row_bytes).zip(out) {
            let weights = decode(dtype, row, cols);
            let terms = || {
                weights
                    .iter()
                    .zip(&x)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x))
            };
            let exact: f64 = terms().sum();
            let magnitude: f64 = terms().map(f64::abs).sum();
            let bound = magnitude * f64::from(f32::EPSILON) * (cols as f64 / 8.0 + 8.0);
            let error = (f64::from(*out) - exact).abs();
            assert!(
                error <= bound,
                "{dtype} {isa:?} {blocks} blocks, {tokens} tokens, {rows} rows: error {error:e} above {bound:e}"
            );
        }
    }
}

#[test]
fn products_are_what_blocks_and_levels_say() {
    let mut random = Random(17);
    for isa in Isa::ALL {
        if !isa.available() {
            eprintln!("this CPU has no {isa:?}: its paths are not tested here");
            continue;
        }
        for dtype in readable() {
            for shape in [
                [1, 1, 1],
                [2, 3, 8],
                [3, 2, 5],
                [5, 7, 11],
                [7, 8, 2],
                [9, 5, 9],
                [1, 21, 17],
                [2, 16, 33],
                [2, 37, 70],
            ] {
                let x = activations(shape[0] * shape[1] * 256, &mut random);
                check(dtype, isa, shape, &x, &mut random);
            }
        }
    }
}

/// Which of a CPU's paths ran does not show in a result, nor does how many tokens it was given.
#[test]
fn paths_round_alike() {
    let mut random = Random(37);
    for dtype in readable() {
        let cols = 2 * dtype.block_values();
        let bytes = random_rows(dtype, 21, cols, &mut random);
        let rows = Rows::new(&bytes, bytes.len() / 21);
        let x = activations(19 * cols, &mut random);
        let products = |isa| {
            let int8 = kernels_on(dtype, isa)?.int8?;
            Some(multiply(int8, rows, &x, cols))
        };
        for isa in [Isa::Vnni, Isa::Amx] {
            if let (Some(expected), Some(found)) = (products(Isa::Avx2), products(isa)) {
                assert_eq!(found, expected, "{dtype} {isa:?}");
            }
        }
    }
}

/// All activations at the largest level, of one sign or the other: sums of few bits are as large as they can be.
#[test]
fn no_sum_overflows() {
    let mut random = Random(31);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for dtype in readable() {
            for x in [1.0, -1.0] {
                for tokens in [1, 4, 16] {
                    check(dtype, isa, [2, tokens, 16], &[x; 8192], &mut random);
                }
            }
        }
    }
}

/// Types with blocks of 256 or 32 values have a reference product, so that every CPU has one.
#[test]
fn blocks_have_a_reference() {
    for dtype in readable() {
        let scalar = kernels_on(dtype, Isa::Scalar).unwrap();
        let expected = [32, 256].contains(&dtype.block_values());
        assert_eq!(scalar.int8.is_some(), expected, "{dtype}");
    }
}

#[test]
fn a_product_does_not_depend_on_its_neighbours() {
    let mut random = Random(23);
    for dtype in readable() {
        for int8 in Isa::ALL
            .into_iter()
            .filter_map(|isa| kernels_on(dtype, isa)?.int8)
        {
            let cols = 3 * dtype.block_values();
            let bytes = random_rows(dtype, 11, cols, &mut random);
            let row_bytes = bytes.len() / 11;
            let x = activations(15 * cols, &mut random);
            let together = multiply(int8, Rows::new(&bytes, row_bytes), &x, cols);
            let alone: Vec<f32> = x
                .chunks_exact(cols)
                .flat_map(|x| {
                    bytes
                        .chunks_exact(row_bytes)
                        .flat_map(|row| multiply(int8, Rows::new(row, row_bytes), x, cols))
                })
                .collect();
            assert_eq!(together, alone, "{dtype}");
        }
    }
}

/// A value that is no number makes every product with it none, whatever stands beside it: zeros in its place would hide
/// damaged weights from whoever looks at the logits.
#[test]
fn what_is_not_finite_stays_so() {
    let mut random = Random(31);
    for dtype in readable() {
        for isa in Isa::ALL {
            let Some(int8) = kernels_on(dtype, isa).and_then(|kernels| kernels.int8) else {
                continue;
            };
            let row = random_row(dtype, 256, LARGEST, &mut random);
            let rows = Rows::new(&row, row.len());
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 7, 255] {
                    let mut x = [1.0; 256 * 5];
                    x[256 + at] = bad;
                    let out = multiply(int8, rows, &x, 256);
                    for (token, out) in out.iter().enumerate() {
                        assert_eq!(out.is_finite(), token != 1, "{dtype} {isa:?} {bad} at {at}");
                    }
                }
            }
        }
    }
}

/// Zeros, denormals and a tile of the wrong grain: no NaN, no panic.
#[test]
fn degenerate_activations() {
    let mut random = Random(29);
    for dtype in readable() {
        let Some(int8) = quant::kernels(dtype).and_then(|kernels| kernels.int8) else {
            continue;
        };
        let row = random_row(dtype, 256, LARGEST, &mut random);
        let rows = Rows::new(&row, row.len());
        for x in [0.0, -0.0, f32::MIN_POSITIVE / 4.0] {
            assert_eq!(multiply(int8, rows, &[x; 256], 256), [0.0], "{dtype}");
        }
        let other = match int8.grain {
            Grain::Of256 => Grain::Of32,
            Grain::Of32 => Grain::Of256,
        };
        let x = Activations::quantize(other, &[1.0; 256], 256);
        for rows in [rows, Rows::new(&row, 1)] {
            let mut out = vec![f32::NAN; rows.count()];
            (int8.multiply)(rows, &x, &mut out);
            assert!(out.iter().all(|out| *out == 0.0), "{dtype}");
        }
        (int8.multiply)(Rows::new(&[], 0), &x, &mut []);
    }
}
