//! Checks a set of files that somebody else put on a disk: every file is hashed, and compared where a checksum is known.
//! Knows no hub; where the checksums come from is the caller's.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::artifact::{self, Shard};
use crate::error::Error;
use crate::manifest::ManifestFile;
use crate::progress::{Meter, Progress, State};
use crate::verify;

/// One file to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Where it lies.
    pub place: PathBuf,
    /// Its path in the artifact.
    pub path: String,
    /// 64 hex digits in lower case; `None` where nobody says what it should be.
    pub sha256: Option<String>,
}

/// What the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// In path order.
    pub files: Vec<ManifestFile>,
    /// As [`crate::Artifact::digest`].
    pub digest: String,
}

/// Hashes `files` one after the other.
///
/// # Errors
/// [`Error::ChecksumDiffers`] names the first file that is not what it should be; [`Error::Io`] one that cannot be read.
pub async fn check(
    files: &[Expected],
    progress: watch::Sender<Progress>,
) -> Result<Checked, Error> {
    let sizes: Vec<u64> = files.iter().map(size).collect::<Result<_, _>>()?;
    let meter = Meter::new(progress);
    meter.start(
        sizes.iter().copied().fold(0, u64::saturating_add),
        files.len(),
    );
    meter.enter(State::Verifying);
    let mut shards = Vec::with_capacity(files.len());
    for (file, size) in files.iter().zip(sizes) {
        meter.say(format!("checking {}", file.path));
        let found = hash(&file.place).await?;
        if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != found) {
            return Err(Error::ChecksumDiffers {
                path: file.path.clone(),
                expected: expected.clone(),
                found,
            });
        }
        meter.add(size);
        meter.shard_done();
        shards.push(Shard {
            path: file.path.clone(),
            size,
            sha256: found,
        });
    }
    meter.say("");
    meter.enter(State::Done);
    shards.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Checked {
        digest: artifact::digest(&shards),
        files: shards.iter().map(ManifestFile::from).collect(),
    })
}

fn size(file: &Expected) -> Result<u64, Error> {
    let meta = std::fs::metadata(&file.place).map_err(Error::io("reading", &file.place))?;
    Ok(meta.len())
}

/// SHA-256 of the file at `path`, on a thread that may wait for the disk.
pub(crate) async fn hash(path: &Path) -> Result<String, Error> {
    let owned = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || verify::sha256(&owned))
        .await
        .map_err(std::io::Error::other);
    hashed.flatten().map_err(Error::io("reading", path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_hashed_and_the_first_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let expected = |name: &str, sha256: Option<&str>| {
            let place = dir.path().join(name);
            std::fs::write(&place, name).unwrap();
            Expected {
                place,
                path: name.to_owned(),
                sha256: sha256.map(str::to_owned),
            }
        };
        // SHA-256 of "b".
        let b = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";
        let files = [expected("b", Some(b)), expected("a", None)];
        let (sender, progress) = watch::channel(Progress::default());
        let checked = check(&files, sender).await.unwrap();
        let paths: Vec<&str> = checked
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(paths, ["a", "b"]);
        assert_eq!(checked.files[1].sha256, b);
        let last = progress.borrow().clone();
        assert_eq!(
            (last.state, last.downloaded, last.bytes, last.shards_done),
            (State::Done, 2, 2, 2)
        );

        let files = [expected("a", None), expected("c", Some(b))];
        let (sender, _progress) = watch::channel(Progress::default());
        let error = check(&files, sender).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.permanent()),
            ("ChecksumMismatch", true)
        );
        assert!(error.to_string().starts_with("c "), "{error}");
    }
}
