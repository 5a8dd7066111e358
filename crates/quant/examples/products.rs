//! How fast one thread multiplies: `products [TYPE...]` prints, for each instruction set that this CPU has, billions of
//! multiply-adds per second with 1 to 64 tokens. Rows of random bytes, out of the cache's reach as weights are.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use gguf::Dtype;
use quant::{Activations, Isa, Rows, kernels_on};

const COLS: usize = 2048;
/// Bytes of weights: more than a core's share of the cache.
const BYTES: usize = 256 << 20;
/// Rows of one task, as the engine has them.
const TASK: usize = 64;
/// Tasks between two looks at the clock.
const LOOK: usize = 64;

/// Time that this process has been on a CPU: what else the machine does counts less.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

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
                let start = busy();
                // A look at the clock costs as much as a few tasks.
                for tasks in bytes.chunks_exact(TASK * LOOK * row_bytes).cycle() {
                    for task in tasks.chunks_exact(TASK * row_bytes) {
                        (int8.multiply)(Rows::new(task, row_bytes), &x, &mut out);
                    }
                    rows += TASK * LOOK;
                    if busy() - start > Duration::from_millis(300) {
                        break;
                    }
                }
                let products = (rows * COLS * tokens) as f64;
                print!(
                    " {tokens}:{:6.1}",
                    products / (busy() - start).as_secs_f64() / 1e9
                );
            }
            println!();
        }
    }
}
