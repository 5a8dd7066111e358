//! `kimi bench`: tokens per second, with llama-bench's flags, table and JSON fields, so that tools and
//! eyes used to it can compare. It must not know how tokens are computed.

use std::{fs, path::PathBuf, time::Duration};

use engine::{Bench, CacheType, Options, Progress, Work};
use serde::Serialize;

/// Arguments of `kimi bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH")]
    model: PathBuf,
    /// Tokens to read; several tests with commas, 0 for none.
    #[arg(
        short = 'p',
        long,
        value_name = "N",
        default_value = "512",
        value_delimiter = ','
    )]
    n_prompt: Vec<usize>,
    /// Tokens to generate; several tests with commas, 0 for none.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "128",
        value_delimiter = ','
    )]
    n_gen: Vec<usize>,
    /// Tokens in the cache before a test; several with commas.
    #[arg(
        short = 'd',
        long,
        value_name = "N",
        default_value = "0",
        value_delimiter = ','
    )]
    n_depth: Vec<usize>,
    /// Runs per test, after one that is not counted.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Count the first run too: pages that it is the first to touch make it slower.
    #[arg(long)]
    no_warmup: bool,
    /// Worker threads [default: all cores].
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How the KV cache is stored: f16, q8_0 or f32.
    #[arg(
        long,
        visible_alias = "cache-type-k",
        value_name = "TYPE",
        default_value_t
    )]
    cache_type: CacheType,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Md)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A Markdown table.
    Md,
    Json,
}

/// One test; fields are named as llama-bench names them.
#[derive(Debug, Serialize)]
struct Row {
    cpu_info: String,
    backends: &'static str,
    model_filename: PathBuf,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    type_k: &'static str,
    type_v: &'static str,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
}

/// Runs every test and prints them.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let tests = tests(args);
    let tokens = |work: &Work| work.depth.saturating_add(work.prompt.max(work.generate));
    let most = tests.iter().map(tokens).max().unwrap_or(0);
    anyhow::ensure!(most > 0, "there is nothing to time: give -p or -n");
    let options = Options {
        context: Some(u32::try_from(most)?),
        threads: args.threads,
        cache_type: args.cache_type,
        ..Options::new(&args.model)
    };
    let bench = Bench::load(&options, &Progress::new())?;
    let rows = tests
        .into_iter()
        .map(|work| {
            // The first run reads pages and fills caches.
            if !args.no_warmup {
                bench.run(work)?;
            }
            let samples = (0..args.repetitions).map(|_| bench.run(work));
            Ok(row(
                args,
                &bench,
                work,
                &samples.collect::<Result<Vec<_>, _>>()?,
            ))
        })
        .collect::<Result<Vec<_>, engine::Error>>()?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Md => print_table(&rows),
    }
    Ok(())
}

/// Reading and generating are timed apart, each at every depth.
fn tests(args: &BenchArgs) -> Vec<Work> {
    let mut tests = Vec::new();
    for depth in args.n_depth.iter().copied() {
        for prompt in args.n_prompt.iter().copied().filter(|tokens| *tokens > 0) {
            tests.push(Work {
                depth,
                prompt,
                generate: 0,
            });
        }
        for generate in args.n_gen.iter().copied().filter(|tokens| *tokens > 0) {
            tests.push(Work {
                depth,
                prompt: 0,
                generate,
            });
        }
    }
    tests
}

fn row(args: &BenchArgs, bench: &Bench, work: Work, samples: &[Duration]) -> Row {
    let info = bench.info();
    let tokens = (work.prompt + work.generate) as f64;
    let seconds: Vec<f64> = samples.iter().map(Duration::as_secs_f64).collect();
    let speeds: Vec<f64> = seconds
        .iter()
        .map(|seconds| tokens / seconds.max(1e-9))
        .collect();
    let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
    let (mean_seconds, spread_seconds) = mean_and_deviation(&seconds);
    let (avg_ts, stddev_ts) = mean_and_deviation(&speeds);
    Row {
        cpu_info: cpu(),
        backends: "CPU",
        model_filename: args.model.clone(),
        model_type: format!("{} {}", info.architecture, info.quant),
        model_size: info.bytes,
        model_n_params: info.parameters,
        n_batch: Bench::BATCH,
        n_ubatch: Bench::BATCH,
        n_threads: info.threads,
        type_k: info.cache_type.name(),
        type_v: info.cache_type.name(),
        n_prompt: work.prompt,
        n_gen: work.generate,
        n_depth: work.depth,
        avg_ns: nanoseconds(mean_seconds),
        stddev_ns: nanoseconds(spread_seconds),
        avg_ts,
        stddev_ts,
        samples_ns: seconds.iter().copied().map(nanoseconds).collect(),
        samples_ts: speeds,
    }
}

/// Of a sample; the deviation of one value is 0.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    (mean, deviation)
}

/// The CPU's name.
fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

fn print_table(rows: &[Row]) {
    println!(
        "| {:<30} | {:>10} | {:>10} | {:<10} | {:>7} | {:>15} | {:>20} |",
        "model", "size", "params", "backend", "threads", "test", "t/s"
    );
    println!(
        "| {:-<30} | {:->9}: | {:->9}: | {:-<10} | {:->6}: | {:->14}: | {:->19}: |",
        "", "", "", "", "", "", ""
    );
    for row in rows {
        let test = match (row.n_prompt, row.n_gen) {
            (0, tokens) => format!("tg{tokens}"),
            (tokens, _) => format!("pp{tokens}"),
        };
        let depth = match row.n_depth {
            0 => String::new(),
            depth => format!(" @ d{depth}"),
        };
        println!(
            "| {:<30} | {:>6.2} GiB | {:>8.2} B | {:<10} | {:>7} | {:>15} | {:>20} |",
            row.model_type,
            row.model_size as f64 / f64::from(1 << 30),
            row.model_n_params as f64 / 1e9,
            row.backends,
            row.n_threads,
            test + &depth,
            format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_of_a_sample() {
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        let (mean, deviation) = mean_and_deviation(&[2.0, 4.0, 6.0]);
        assert_eq!((mean, deviation), (4.0, 2.0));
    }
}
