//! Facts of files on this machine: of any local GGUF, and of an artifact that an earlier `kimi run` fetched and verified.
//! It must not reach the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fetch::Manifest;
use sizing::{Facts, Identity};

/// Digits of a commit id.
const COMMIT_DIGITS: usize = 40;

/// Facts from the headers of the set that begins with `first`; `identity` is given the bytes of its shards together.
/// An error says what is wrong with which file.
pub(crate) fn of_files(
    first: &Path,
    identity: impl FnOnce(u64) -> Identity,
) -> Result<Facts, String> {
    let shards = gguf::shard::find_shards(first).map_err(|error| error.to_string())?;
    let mut headers = Vec::with_capacity(shards.len());
    let mut bytes = 0u64;
    for shard in &shards {
        headers.push(gguf::open_header(shard).map_err(|error| error.to_string())?);
        bytes += fs::metadata(shard)
            .map_err(|error| error.to_string())?
            .len();
    }
    gguf::shard::check_set(&headers).map_err(|error| error.to_string())?;
    Facts::from_headers(&headers, &identity(bytes)).map_err(|error| error.to_string())
}

/// What an artifact must be to stand in for one on a hub that cannot be reached.
pub(crate) struct Wanted<'w> {
    pub(crate) repo: &'w str,
    pub(crate) quant: &'w str,
    /// A commit id must be the artifact's; a branch or tag may have been any commit.
    pub(crate) revision: &'w str,
    /// Start of the files' names.
    pub(crate) path: Option<&'w str>,
}

/// The directories of `models` whose names begin with `prefix` hold artifacts of one repository and quant. The one
/// verified last that is whole and `wanted`.
pub(crate) fn kept(models: &Path, prefix: &str, wanted: &Wanted<'_>) -> Option<Facts> {
    let mut found: Vec<(SystemTime, PathBuf, Manifest)> = fs::read_dir(models)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| {
            let dir = entry.path();
            let manifest = Manifest::read(&dir).filter(|manifest| manifest.is_whole(&dir))?;
            let written = fs::metadata(dir.join(fetch::manifest::FILE))
                .and_then(|meta| meta.modified())
                .ok()?;
            is_wanted(&manifest, wanted).then_some((written, dir, manifest))
        })
        .collect();
    found.sort_by_key(|(written, ..)| std::cmp::Reverse(*written));
    found.into_iter().find_map(|(_, dir, manifest)| {
        let first = manifest.files.first()?.path.clone();
        of_files(&dir.join(&first), |bytes| Identity {
            repo: manifest.repo,
            commit: manifest.commit,
            path: first.clone(),
            quant: wanted.quant.to_owned(),
            digest: manifest.digest,
            bytes,
        })
        .ok()
    })
}

fn is_wanted(manifest: &Manifest, wanted: &Wanted<'_>) -> bool {
    let pinned = wanted.revision.len() == COMMIT_DIGITS
        && wanted
            .revision
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit());
    manifest.repo == wanted.repo
        && (!pinned || manifest.commit.eq_ignore_ascii_case(wanted.revision))
        && manifest
            .files
            .iter()
            .all(|file| wanted.path.is_none_or(|path| file.path.starts_with(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_commit_repository_and_path_stand_in() {
        let manifest = Manifest {
            repo: "a/b".to_owned(),
            commit: "c".repeat(COMMIT_DIGITS),
            digest: String::new(),
            files: vec![fetch::manifest::ManifestFile {
                path: "Q4_K_M/x.gguf".to_owned(),
                size: 1,
                sha256: String::new(),
            }],
            bytes: 1,
        };
        let other = "d".repeat(COMMIT_DIGITS);
        for (repo, revision, path, expected) in [
            ("a/b", "main", None, true),
            ("a/b", manifest.commit.as_str(), Some("Q4_K_M"), true),
            ("a/b", other.as_str(), None, false),
            ("a/c", "main", None, false),
            ("a/b", "main", Some("Q8_0"), false),
        ] {
            let wanted = Wanted {
                repo,
                quant: "Q4_K_M",
                revision,
                path,
            };
            assert_eq!(is_wanted(&manifest, &wanted), expected, "{repo} {revision}");
        }
    }
}
