//! How fast this machine reads memory: the floor of every decode. Prints GB/s for each number of threads up to the
//! argument, the best of five passes over a gigabyte. It must not know models.

use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 1 << 30;

#[allow(clippy::print_stdout, reason = "its output is what it is for")]
fn main() {
    let most: usize = std::env::args()
        .nth(1)
        .and_then(|threads| threads.parse().ok())
        .unwrap_or(2);
    let data: Vec<u64> = (0..BYTES as u64 / 8).collect();
    for threads in 1..=most.clamp(1, 256) {
        let best = (0..5).map(|_| pass(&data, threads)).fold(0.0, f64::max);
        println!("{threads} {best:.2}");
    }
}

/// GB/s of one pass, every thread over a part of its own.
fn pass(data: &[u64], threads: usize) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in data.chunks(data.len().div_ceil(threads)) {
            scope.spawn(move || black_box(sum(part)));
        }
    });
    size_of_val(data) as f64 / begun.elapsed().as_secs_f64() / 1e9
}

/// In sixteen sums, which compilers keep in vector registers.
fn sum(part: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for values in part.as_chunks::<16>().0 {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |sum, one| sum.wrapping_add(*one))
}
