//! Split models: how shards are named, found next to each other, and checked to be one whole set.
//! It must not read tensor data or know which model a set holds.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::error::MetadataError;
use crate::limits;
use crate::read::Header;

/// Metadata key: this shard's place, counted from 0 (u16).
pub const NO_KEY: &str = "split.no";
/// Metadata key: number of shards (u16).
pub const COUNT_KEY: &str = "split.count";
/// Metadata key: tensors of all shards together (i32).
pub const TENSORS_KEY: &str = "split.tensors.count";

/// The parts of a shard's file name `<prefix>-00001-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardName {
    pub prefix: String,
    /// Counted from 1.
    pub no: u32,
    pub count: u32,
}

impl ShardName {
    /// Takes a file name (no directory) apart; `None` when it is not a shard's name.
    pub fn parse(file_name: &str) -> Option<ShardName> {
        let stem = file_name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, no) = rest.rsplit_once('-')?;
        let (no, count) = (number(no)?, number(count)?);
        if prefix.is_empty() || no == 0 || no > count || count > limits::SHARDS {
            return None;
        }
        Some(ShardName {
            prefix: prefix.to_owned(),
            no,
            count,
        })
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(&self.prefix, self.no, self.count))
    }
}

/// Exactly five digits.
fn number(text: &str) -> Option<u32> {
    if text.len() != 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The file name of shard `no` (from 1) of `count`.
pub fn name(prefix: &str, no: u32, count: u32) -> String {
    format!("{prefix}-{no:05}-of-{count:05}.gguf")
}

/// Why a model's files do not form a whole.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{0} holds no .gguf file")]
    NoModel(PathBuf),
    #[error("{dir} holds several models ({models}); name the file of one")]
    SeveralModels { dir: PathBuf, models: String },
    #[error("shard {first_missing} is missing ({missing} of {count} are); fetch the model again")]
    Missing {
        first_missing: PathBuf,
        missing: usize,
        count: u32,
    },
    #[error("the model is split in {count} shards but {found} were given")]
    Count { count: u32, found: usize },
    #[error(
        "file {place} of the set is shard {no}, so the files are in wrong order or of another set"
    )]
    Order { place: usize, no: u32 },
    #[error(
        "the shards hold {found} tensors together where shard 1 announces {announced}; they are of different sets"
    )]
    Tensors { found: u64, announced: u64 },
    #[error("tensor '{0}' is in two shards")]
    DuplicateTensor(String),
    #[error("shard {no}: {error}")]
    Metadata { no: usize, error: MetadataError },
}

/// The files of the model at `path`, in order: a single file, any shard of a set, or a directory holding one model.
///
/// # Errors
/// Names the first missing shard, or the models of an ambiguous directory.
pub fn find_shards(path: &Path) -> Result<Vec<PathBuf>, ShardError> {
    let io = |error| ShardError::Io {
        path: path.to_owned(),
        error,
    };
    if fs::metadata(path).map_err(io)?.is_dir() {
        return find_shards(&only_model(path)?);
    }
    let file_name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some(shard) = ShardName::parse(file_name) else {
        return Ok(vec![path.to_owned()]);
    };
    let paths: Vec<PathBuf> = (1..=shard.count)
        .map(|no| path.with_file_name(name(&shard.prefix, no, shard.count)))
        .collect();
    let missing: Vec<&PathBuf> = paths.iter().filter(|path| !path.is_file()).collect();
    if let Some(first) = missing.first() {
        return Err(ShardError::Missing {
            first_missing: (*first).clone(),
            missing: missing.len(),
            count: shard.count,
        });
    }
    Ok(paths)
}

/// One file of the only model in a directory. Vision projectors (`mmproj…`) belong to a model and are none.
fn only_model(dir: &Path) -> Result<PathBuf, ShardError> {
    let io = |error| ShardError::Io {
        path: dir.to_owned(),
        error,
    };
    let mut models: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let file_name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if !file_name.ends_with(".gguf") || file_name.starts_with("mmproj") || !path.is_file() {
            continue;
        }
        let model = ShardName::parse(file_name).map_or(file_name.to_owned(), |shard| {
            name(&shard.prefix, 1, shard.count)
        });
        if models.iter().all(|(known, _)| *known != model) {
            models.push((model, path));
        }
    }
    models.sort();
    match models.as_slice() {
        [] => Err(ShardError::NoModel(dir.to_owned())),
        [(_, path)] => Ok(path.clone()),
        several => Err(ShardError::SeveralModels {
            dir: dir.to_owned(),
            models: several
                .iter()
                .map(|(model, _)| model.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// Checks that the headers, in shard order, are one whole model: place, count, tensor total, no tensor twice.
///
/// # Errors
/// Says which shard or tensor contradicts the set.
pub fn check_set(headers: &[Header]) -> Result<(), ShardError> {
    let metadata = |index: usize| {
        move |error| ShardError::Metadata {
            no: index + 1,
            error,
        }
    };
    let mut names = HashSet::new();
    for (index, header) in headers.iter().enumerate() {
        // A file that was never split carries no split keys.
        let count = header
            .metadata
            .opt_u32(COUNT_KEY)
            .map_err(metadata(index))?
            .unwrap_or(1);
        if count as usize != headers.len() {
            return Err(ShardError::Count {
                count,
                found: headers.len(),
            });
        }
        let no = header
            .metadata
            .opt_u32(NO_KEY)
            .map_err(metadata(index))?
            .unwrap_or(0);
        if no as usize != index {
            return Err(ShardError::Order {
                place: index + 1,
                no: no.saturating_add(1),
            });
        }
        for tensor in &header.tensors {
            if !names.insert(tensor.name.as_str()) {
                return Err(ShardError::DuplicateTensor(tensor.name.clone()));
            }
        }
    }
    let Some(first) = headers.first() else {
        return Err(ShardError::Count { count: 1, found: 0 });
    };
    let found = names.len() as u64;
    match first.metadata.opt_u64(TENSORS_KEY).map_err(metadata(0))? {
        Some(announced) if announced != found => Err(ShardError::Tensors { found, announced }),
        _ => Ok(()),
    }
}
