//! How fast one thread multiplies: `products [TYPE...]` prints, for each instruction set that this CPU has, billions of
//! multiply-adds per second with 1 to 64 tokens. Rows of random bytes, out of the cache's reach as weights are.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use gguf::Dtype;
use quant::{Activations, Isa, Rows, kernels_on};

const COLS: usize = 2048;
/// Bytes of weights: more than a core's share of the cache.
const BYTES: usize = 256 << 20;
/// Rows of one task, as the engine has them.
const TASK: usize = 64;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..BYTES)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    for &dtype in Dtype::ALL {
        if !names.is_empty() && !names.iter().any(|name| name == dtype.name()) {
            continue;
        }
        for isa in Isa::ALL {
            let Some(int8) = kernels_on(dtype, isa).and_then(|kernels| kernels.int8) else {
                continue;
            };
            if isa == Isa::Scalar {
                continue;
            }
            print!("{:8} {:8}", dtype.name(), format!("{isa:?}"));
            let Some(row_bytes) = dtype.row_bytes(COLS) else {
                continue;
            };
            for tokens in [1, 2, 4, 6, 12, 64] {
                let x: Vec<f32> = (0..COLS * tokens).map(|i| (i % 17) as f32 - 8.0).collect();
                let x = Activations::quantize(int8.grain, &x, COLS);
                let mut out = vec![0.0; TASK * tokens];
                let mut rows = 0;
                let start = Instant::now();
                for task in bytes.chunks_exact(TASK * row_bytes).cycle() {
                    (int8.multiply)(Rows::new(task, row_bytes), &x, &mut out);
                    rows += TASK;
                    if start.elapsed() > Duration::from_millis(400) {
                        break;
                    }
                }
                let products = (rows * COLS * tokens) as f64;
                print!(
                    " {tokens}:{:6.1}",
                    products / start.elapsed().as_secs_f64() / 1e9
                );
            }
            println!();
        }
    }
}
