//! `kimi plan`: what serving a `KimiModel` would take, before anything is downloaded. Reads the document the operator
//! reads and prints the plan it would make, as a table or as JSON with the field names of `status.plan`. It must not
//! reach the network.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use sizing::facts::Failure;
use sizing::{CacheType, Facts, Fits, GB, Identity, InspectReport, Plan};
use spec::Document;

use crate::local_facts;
use crate::planning::{self, PlanError, Resolved};

/// Some plan is `fits: no`.
const REFUSED: u8 = 1;
/// The file, or what it names, cannot be planned.
const BAD_FILE: u8 = 2;
/// Larger than any spec or report; a header is read by the gguf crate under its own limits.
const MAX_TEXT: u64 = 1 << 20;

/// Plan what serving a model takes: disk, RAM, VRAM, time, and whether it fits.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// YAML file with one or several KimiModels; `-` reads standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// How to print the plan.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Plan exactly, from a report that `kimi inspect-remote` wrote.
    #[arg(long, value_name = "REPORT", conflicts_with = "gguf")]
    facts: Option<PathBuf>,
    /// Plan exactly, from the header of a GGUF file (the first shard of a set).
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    /// Download bandwidth in Mbit/s.
    #[arg(long, value_name = "MBIT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    bandwidth: u64,
    /// How the KV cache is stored: f16, q8_0 or f32.
    #[arg(
        long,
        visible_alias = "cache-type-k",
        value_name = "TYPE",
        default_value_t
    )]
    cache_type: CacheType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Why nothing could be planned.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {path}: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path}: {source}")]
    Spec { path: String, source: spec::Error },
    #[error("{name}: {source}")]
    Plan { name: String, source: PlanError },
    #[error("{path}: {message}")]
    Facts { path: String, message: String },
    #[error("--facts and --gguf describe one model; {0} documents are in the file")]
    FactsForSeveral(usize),
    #[error("cannot write the plan: {0}")]
    Write(#[from] std::io::Error),
}

/// One document and its plan.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    repo: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_reason: Option<String>,
    #[serde(flatten)]
    plan: Plan,
    #[serde(skip)]
    vram_total: u64,
}

/// Plans every document of the file. 0: all fit; 1: one is refused; 2: the file cannot be planned.
pub(crate) fn run(args: &PlanArgs) -> ExitCode {
    match plan_all(args).and_then(|rows| print(args.output, &rows).map(|()| rows)) {
        Ok(rows) if rows.iter().any(|row| row.plan.fits == Fits::No) => ExitCode::from(REFUSED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(BAD_FILE)
        }
    }
}

fn plan_all(args: &PlanArgs) -> Result<Vec<Row>, Error> {
    let text = read(&args.file)?;
    let path = args.file.display().to_string();
    let documents = documents(&text).map_err(|source| Error::Spec { path, source })?;
    if (args.facts.is_some() || args.gguf.is_some()) && documents.len() > 1 {
        return Err(Error::FactsForSeveral(documents.len()));
    }
    documents
        .into_iter()
        .map(|document| plan_one(args, document))
        .collect()
}

/// Every KimiModel of a text. A line that begins with `---` separates YAML documents wherever it stands.
fn documents(text: &str) -> Result<Vec<Document>, spec::Error> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        if line.starts_with("---") {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    let says_something = |part: &&String| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    };
    match parts.iter().filter(says_something).collect::<Vec<_>>() {
        parts if parts.is_empty() => Err(spec::Error::NoKimiModel),
        parts => parts.into_iter().map(|part| spec::load(part)).collect(),
    }
}

fn plan_one(args: &PlanArgs, document: Document) -> Result<Row, Error> {
    let name = document.name;
    let in_name = |source| Error::Plan {
        name: name.clone(),
        source,
    };
    let mut resolved = planning::resolve(&document.spec).map_err(in_name)?;
    resolved.cache_type = args.cache_type;
    let facts = match (&args.facts, &args.gguf) {
        (Some(path), _) => Some(facts_of_report(path)?),
        (None, Some(path)) => Some(facts_of_files(path, &resolved)?),
        (None, None) => None,
    };
    let bits = args.bandwidth.saturating_mul(1_000_000);
    let plan = planning::plan(&resolved, facts.as_ref(), bits).map_err(in_name)?;
    Ok(Row {
        model: resolved.model.map(|model| model.name),
        repo: resolved.repo,
        auto_reason: resolved.auto_reason,
        plan,
        vram_total: resolved.hardware.memory_bytes,
        name,
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin().take(MAX_TEXT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text))
    };
    match result {
        Ok(_) => Ok(text),
        Err(source) => Err(Error::Read {
            path: path.display().to_string(),
            source,
        }),
    }
}

fn facts_of_report(path: &Path) -> Result<Facts, Error> {
    let failed = |message: String| Error::Facts {
        path: path.display().to_string(),
        message,
    };
    match InspectReport::parse(&read(path)?) {
        Ok(InspectReport::Facts(facts)) => Ok(*facts),
        Ok(InspectReport::Error(Failure { reason, message })) => Err(failed(format!(
            "the inspection failed: {reason}: {message}"
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Facts of local files. They carry no commit and no digests, so the ids are zeros; no formula uses them.
fn facts_of_files(first: &Path, resolved: &Resolved) -> Result<Facts, Error> {
    local_facts::of_files(first, |bytes| Identity {
        repo: resolved.repo.clone(),
        commit: "0".repeat(40),
        path: first
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        quant: resolved.quant.clone(),
        digest: "0".repeat(64),
        bytes,
    })
    .map_err(|message| Error::Facts {
        path: first.display().to_string(),
        message,
    })
}

fn print(output: Output, rows: &[Row]) -> Result<(), Error> {
    let text = match (output, rows) {
        (Output::Table, _) => table(rows),
        // One document gives the object itself, so that `jq .storageBytes` needs no index.
        (Output::Json, [row]) => json(row)?,
        (Output::Json, rows) => json(&rows)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    text.push('\n');
    Ok(text)
}

const COLUMNS: [&str; 13] = [
    "NAME",
    "QUANT",
    "HARDWARE",
    "FITS",
    "VRAM",
    "CATALOGUE-VRAM",
    "EXPERTS",
    "RAM",
    "RAM-MIN",
    "STORAGE",
    "DOWNLOAD",
    "TOK/S",
    "BASIS",
];

/// Columns as `kubectl get` sets them, then a line of words per model.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            lines
                .iter()
                .map(|cells| cells[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for cells in &lines {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for row in rows {
        let _ = write!(text, "\n{}: {}.\n", row.name, row.plan.reason);
        if let Some(reason) = &row.auto_reason {
            let _ = writeln!(text, "  auto chose {reason}.");
        }
    }
    text
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let plan = &row.plan;
    let fits = match plan.fits {
        Fits::Yes => "yes",
        Fits::Tight => "tight",
        Fits::No => "no",
    };
    let basis = match plan.basis {
        sizing::Basis::Catalogue => "catalogue",
        sizing::Basis::Exact => "exact",
    };
    let vram = match row.vram_total {
        0 => "-".to_owned(),
        total => format!("{} of {}", size(plan.vram_bytes), size(total)),
    };
    let refused = plan.fits == Fits::No;
    let speed = plan
        .milli_tokens_per_second
        .filter(|_| !refused)
        .map_or("-".to_owned(), |milli| {
            format!("{}.{:02}", milli / 1000, milli % 1000 / 10)
        });
    [
        row.name.clone(),
        plan.quant.clone(),
        plan.hardware.to_owned(),
        fits.to_owned(),
        vram,
        plan.catalogue_vram_bytes.map_or("-".to_owned(), size),
        if refused {
            "-".to_owned()
        } else {
            plan.gpu_experts.to_string()
        },
        size(plan.ram_bytes),
        size(plan.ram_min_bytes),
        size(plan.storage_bytes),
        duration(plan.download_seconds),
        speed,
        basis.to_owned(),
    ]
}

/// Bytes in decimal GB or MB, as everywhere in a plan.
fn size(bytes: u64) -> String {
    if bytes < GB {
        return format!("{}MB", bytes.div_ceil(1_000_000));
    }
    let tenths = bytes.saturating_add(GB / 20) / (GB / 10);
    match tenths % 10 {
        0 => format!("{}GB", tenths / 10),
        tenth => format!("{}.{tenth}GB", tenths / 10),
    }
}

/// Seconds as kubectl writes ages: 51m, 8h28m, 45s.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, _) => format!("{minutes}m"),
        (hours, minutes, _) if hours < 48 => format!("{hours}h{minutes}m"),
        (hours, ..) => format!("{}d{}h", hours / 24, hours % 24),
    }
}
