//! Every target with inputs made of its corpus: none panics, and none takes more memory than a stated multiple of it.
//! `KIMI_FUZZ` sets how many inputs each gets, and `KIMI_FUZZ_FIRST` the number of the first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    env, fs,
    panic::catch_unwind,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fuzz::{BODY, HEADER, MODEL, SAFETENSORS, TEMPLATE, TOKENIZER, Target, mutate};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs of each target in `make test`.
const SLICE: u64 = 2_000;

/// What all inputs of a target together may leave behind.
const LEFT: usize = 16 << 20;

/// One target at a time, so that the memory is its own.
static ALONE: Mutex<()> = Mutex::new(());

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Memory that an input took; fails, and keeps the input, where that or the outcome is not as promised.
fn run(target: &Target, input: &[u8], number: u64) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(|| (target.run)(input));
    let spent = MEMORY.peak_usage().saturating_sub(before);
    let (per_byte, beside) = target.memory;
    if outcome.is_err() || spent > per_byte * input.len() + beside {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", target.name));
        fs::write(&kept, input).unwrap();
        panic!(
            "input {number} of {} bytes took {spent} bytes; kept as {}",
            input.len(),
            kept.display()
        );
    }
    spent
}

fn check(target: &Target) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = target.corpus().unwrap();
    // What is made once in a process is made here.
    for input in &corpus {
        (target.run)(input);
    }
    let left = MEMORY.current_usage();
    for (at, input) in corpus.iter().enumerate() {
        run(target, input, at as u64);
    }
    let first = number("KIMI_FUZZ_FIRST").unwrap_or(0);
    let count = number("KIMI_FUZZ").unwrap_or(SLICE);
    let begun = Instant::now();
    let (mut most, mut slowest) = (0, Duration::ZERO);
    for number in first..first + count {
        let input = mutate::input(target, &corpus, number);
        let begun = Instant::now();
        most = most.max(run(target, &input, number));
        slowest = slowest.max(begun.elapsed());
    }
    let left = MEMORY.current_usage().saturating_sub(left);
    assert!(left < LEFT, "{left} bytes are left");
    println!(
        "fuzz {}: {count} inputs from {first} on in {:.0} s, most memory {most} bytes, slowest {:.3} s",
        target.name,
        begun.elapsed().as_secs_f64(),
        slowest.as_secs_f64()
    );
}

#[test]
fn header() {
    check(&HEADER);
}

#[test]
fn model() {
    check(&MODEL);
}

#[test]
fn safetensors() {
    check(&SAFETENSORS);
}

#[test]
fn tokenizer() {
    check(&TOKENIZER);
}

#[test]
fn template() {
    check(&TEMPLATE);
}

#[test]
fn body() {
    check(&BODY);
}
