//! Every fast dot product against the scalar reference on random blocks, at lengths that leave tails and at
//! unaligned addresses. A path the running CPU lacks is skipped, and said so.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{Random, decode, is_plain, random_row, readable};
use gguf::Dtype;
use quant::{Isa, kernels_on};

fn check(dtype: Dtype, isa: Isa, values: usize, random: &mut Random) {
    let reference = kernels_on(dtype, Isa::Scalar).unwrap();
    let Some(fast) = kernels_on(dtype, isa) else {
        return;
    };
    // One byte and one float of padding in front make both addresses odd ones.
    let mut row = vec![0];
    row.extend(random_row(dtype, values, 16.0, random));
    let row = &row[1..];
    let x: Vec<f32> = (0..=values).map(|_| random.float()).collect();
    let x = &x[1..];

    let weights = decode(dtype, row, values);
    let terms = || {
        weights
            .iter()
            .zip(x)
            .map(|(w, x)| f64::from(*w) * f64::from(*x))
    };
    let exact: f64 = terms().sum();
    let magnitude: f64 = terms().map(f64::abs).sum();
    // Eight or more partial sums: each adds at most n/8 times, and the lanes and the weights' own roundings add a few.
    let bound = magnitude * f64::from(f32::EPSILON) * (values as f64 / 8.0 + 8.0);
    for kernels in [reference, fast] {
        let error = (f64::from((kernels.dot)(row, x)) - exact).abs();
        assert!(
            error <= bound,
            "{dtype} {:?} n={values}: error {error:e} above {bound:e}",
            kernels.isa
        );
    }
}

#[test]
fn fast_paths_agree_with_the_reference() {
    let mut random = Random(7);
    for isa in [Isa::Avx2, Isa::Avx512] {
        if !isa.available() {
            eprintln!("this CPU has no {isa:?}: its paths are not tested here");
            continue;
        }
        for dtype in readable() {
            for blocks in [0, 1, 2, 3, 5, 7, 28, 31, 33, 65] {
                check(dtype, isa, blocks * dtype.block_values(), &mut random);
            }
        }
        for values in 0..131 {
            for dtype in readable().into_iter().filter(|dtype| is_plain(*dtype)) {
                check(dtype, isa, values, &mut random);
            }
        }
    }
}

/// Lengths that disagree are cut to the shorter, on every path: never a panic or a stray read.
#[test]
fn lengths_that_disagree() {
    let mut random = Random(11);
    for dtype in readable() {
        for kernels in Isa::ALL
            .into_iter()
            .filter_map(|isa| kernels_on(dtype, isa))
        {
            let n = 3 * dtype.block_values();
            let row = random_row(dtype, n, 16.0, &mut random);
            let x: Vec<f32> = (0..n).map(|_| random.float()).collect();
            let whole = 2 * dtype.block_values();
            let cut = (kernels.dot)(&row[..dtype.row_bytes(whole).unwrap()], &x);
            assert_eq!(cut, (kernels.dot)(&row, &x[..whole]), "{dtype}");
            (kernels.dot)(&row[..row.len() - 1], &x);
            (kernels.dequantize)(&row[..row.len() - 1], &mut vec![0.0; n]);
            assert_eq!((kernels.dot)(&[], &x), 0.0);
        }
    }
}
