//! `kimi verify`: a model that somebody else put on a volume, hashed and described, so that it can be served without a
//! hub. The checksums come from the manifest of `kimi fetch` or a list beside the files, where there is one. It must not
//! write to the volume.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use fetch::check::{Checked, Expected};
use fetch::{Manifest, Progress};
use sizing::{Facts, Identity, InspectReport};
use tokio::sync::watch;

use crate::cmd_fetch;
use crate::cmd_inspect_remote::check_servable;
use crate::job::{self, JobError};

/// Names of lists in the format of `sha256sum`.
const LISTS: [&str; 2] = ["SHA256SUMS", "sha256sums.txt"];
/// A list of a thousand shards has 100 KB.
const MAX_LIST: u64 = 1 << 20;
/// Digits of the commit that stands for files of which no commit is known: the start of their digest.
const COMMIT_DIGITS: usize = 40;

/// Check a model that is on a volume already, and report what it is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Root of the volume.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Directory or file below the root.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Quant, which is also the directory where several lie side by side.
    #[arg(long)]
    quant: String,
    /// What to call the source of files that come without the manifest of `kimi fetch`.
    #[arg(long, value_name = "NAME", default_value = "volume/local")]
    name: String,
    /// Address that serves GET /progress.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where to write the report besides standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Verifies; exit codes as for every Job command.
pub(crate) fn run(args: &VerifyArgs) -> ExitCode {
    let outcome = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = verify(args) => outcome,
                    () = job::asked_to_end() => Err(JobError::transient("Interrupted", "asked to end; run it again")),
                }
            });
            // A hash under way reads a disk and changes nothing.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(JobError::transient(
            "IoError",
            format!("starting threads: {error}"),
        )),
    };
    match outcome {
        Ok(facts) => {
            let report = InspectReport::Facts(Box::new(facts)).to_json();
            if let Some(path) = &args.output {
                job::write(path, &report);
            }
            // The report is in the file; a closed standard output loses nothing.
            let _ = writeln!(std::io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(error) => job::fail(&error, args.output.as_deref()),
    }
}

async fn verify(args: &VerifyArgs) -> Result<Facts, JobError> {
    let (sender, progress) = watch::channel(Progress::default());
    if let Some(address) = args.listen {
        cmd_fetch::serve_progress(address, progress).await;
    }
    let set = Set::find(args)?;
    // Headers first: what cannot be served needs no hour of hashing.
    let headers = set.headers()?;
    check_servable(&headers)?;
    let checked = fetch::check::check(&set.files, sender).await?;
    let bytes = checked.files.iter().map(|file| file.size).sum();
    let identity = set.identity(args, &checked, bytes);
    Facts::from_headers(&headers, &identity)
        .map_err(|error| JobError::permanent(error.reason(), error.to_string()))
}

/// The files of one model, and who says what they should be.
#[derive(Debug)]
struct Set {
    files: Vec<Expected>,
    manifest: Option<Manifest>,
    /// Path of the first shard below the root: what a server opens.
    first: String,
}

impl Set {
    fn find(args: &VerifyArgs) -> Result<Self, JobError> {
        let below = Path::new(args.path.as_deref().unwrap_or_default());
        if !below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(JobError::permanent(
                "InvalidSource",
                format!(
                    "{} is no relative path below the volume's root",
                    below.display()
                ),
            ));
        }
        let base = args.dir.join(below);
        if base.is_dir()
            && let Some(manifest) = Manifest::read(&base)
        {
            return Self::of_manifest(args, &base, manifest);
        }
        let named = base.join(&args.quant);
        let place = if named.is_dir() { &named } else { &base };
        let shards = gguf::shard::find_shards(place).map_err(|error| {
            let message = format!(
                "{error}; set source.pvc.path to the directory of the model, or to its first shard"
            );
            JobError::transient("ModelNotFound", message)
        })?;
        let dir = shards
            .first()
            .and_then(|shard| shard.parent())
            .unwrap_or(&base)
            .to_owned();
        let sums = checksums(&dir)?;
        let expected = |place: PathBuf| {
            let path = file_name(&place);
            let sha256 = sums.get(&path).cloned();
            if sha256.is_none() && !sums.is_empty() {
                let message = format!("the list of checksums in {} lacks {path}", dir.display());
                return Err(JobError::permanent("ChecksumUnknown", message));
            }
            Ok(Expected {
                place,
                path,
                sha256,
            })
        };
        let first = relative(&args.dir, shards.first());
        Ok(Self {
            files: shards.into_iter().map(expected).collect::<Result<_, _>>()?,
            manifest: None,
            first,
        })
    }

    fn of_manifest(args: &VerifyArgs, base: &Path, manifest: Manifest) -> Result<Self, JobError> {
        if !manifest.is_whole(base) {
            let message = format!(
                "{} lists files that are missing or of another size: copy the directory again",
                base.join(fetch::manifest::FILE).display()
            );
            return Err(JobError::transient("MissingShard", message));
        }
        let files: Vec<Expected> = manifest
            .files
            .iter()
            .map(|file| Expected {
                place: base.join(&file.path),
                path: file.path.clone(),
                sha256: Some(file.sha256.clone()),
            })
            .collect();
        Ok(Self {
            first: relative(&args.dir, files.first().map(|file| &file.place)),
            files,
            manifest: Some(manifest),
        })
    }

    fn headers(&self) -> Result<Vec<gguf::Header>, JobError> {
        let headers = self.files.iter().map(|file| gguf::open_header(&file.place));
        let headers: Vec<gguf::Header> = headers
            .collect::<Result<_, _>>()
            .map_err(|error| JobError::permanent("BadHeader", error.to_string()))?;
        gguf::shard::check_set(&headers)
            .map_err(|error| JobError::permanent("BadShardSet", error.to_string()))?;
        Ok(headers)
    }

    fn identity(&self, args: &VerifyArgs, checked: &Checked, bytes: u64) -> Identity {
        let digest = checked.digest.clone();
        let (repo, commit) = match &self.manifest {
            Some(manifest) => (manifest.repo.clone(), manifest.commit.clone()),
            None => (
                args.name.clone(),
                digest.chars().take(COMMIT_DIGITS).collect(),
            ),
        };
        Identity {
            repo,
            commit,
            path: self.first.clone(),
            quant: args.quant.clone(),
            digest,
            bytes,
        }
    }
}

/// Checksums by file name from the list in `dir`; none where there is no list.
fn checksums(dir: &Path) -> Result<BTreeMap<String, String>, JobError> {
    let Some(list) = LISTS
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file())
    else {
        return Ok(BTreeMap::new());
    };
    let unreadable = |what: String| {
        let message = format!("{}: {what}; write it with sha256sum *.gguf", list.display());
        JobError::permanent("ChecksumUnknown", message)
    };
    let small = std::fs::metadata(&list).is_ok_and(|meta| meta.len() <= MAX_LIST);
    if !small {
        return Err(unreadable(format!("larger than {MAX_LIST} bytes")));
    }
    let text = std::fs::read_to_string(&list).map_err(|error| unreadable(error.to_string()))?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let parsed = line.split_once(' ').filter(|(sum, _)| {
                sum.len() == 64 && sum.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            let (sum, name) =
                parsed.ok_or_else(|| unreadable(format!("no checksum in the line '{line}'")))?;
            // Two spaces, or a space and `*` for binary mode.
            let name = file_name(Path::new(name.trim_start_matches([' ', '*'])));
            Ok((name, sum.to_ascii_lowercase()))
        })
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn relative(root: &Path, place: Option<&PathBuf>) -> String {
    place
        .and_then(|place| place.strip_prefix(root).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(dir: &Path, path: Option<&str>) -> VerifyArgs {
        VerifyArgs {
            dir: dir.to_owned(),
            path: path.map(str::to_owned),
            quant: "Q4_K_M".to_owned(),
            name: "volume/weights".to_owned(),
            listen: None,
            output: None,
        }
    }

    #[test]
    fn a_set_is_found_by_path_by_quant_and_at_the_root() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("models/Q4_K_M");
        std::fs::create_dir_all(&dir).unwrap();
        for no in 1..=2 {
            std::fs::write(dir.join(format!("m-0000{no}-of-00002.gguf")), "x").unwrap();
        }
        for path in [
            "models",
            "models/Q4_K_M",
            "models/Q4_K_M/m-00002-of-00002.gguf",
        ] {
            let set = Set::find(&args(root.path(), Some(path))).unwrap();
            assert_eq!(set.first, "models/Q4_K_M/m-00001-of-00002.gguf", "{path}");
            assert!(set.files.iter().all(|file| file.sha256.is_none()));
        }
        let set = Set::find(&args(&dir, None)).unwrap();
        assert_eq!(set.first, "m-00001-of-00002.gguf");
        for (path, reason) in [(Some("../x"), "InvalidSource"), (None, "ModelNotFound")] {
            let error = Set::find(&args(root.path(), path)).unwrap_err();
            assert_eq!(error.reason, reason, "{}", error.message);
        }

        let sum = "AB".repeat(32);
        let list = format!("{sum}  m-00001-of-00002.gguf\n{sum} *./m-00002-of-00002.gguf\n");
        std::fs::write(dir.join(LISTS[0]), list).unwrap();
        let set = Set::find(&args(&dir, None)).unwrap();
        assert_eq!(set.files[1].sha256, Some("ab".repeat(32)));
        for (list, words) in [
            (format!("{sum}  m-00001-of-00002.gguf\n"), "lacks m-00002"),
            ("nonsense\n".to_owned(), "no checksum in the line"),
        ] {
            std::fs::write(dir.join(LISTS[0]), list).unwrap();
            let error = Set::find(&args(&dir, None)).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
