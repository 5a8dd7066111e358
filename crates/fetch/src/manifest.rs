//! The statement that an artifact is whole: `kimi-manifest.json` at the volume's root. It appears by rename and only
//! after every shard was verified. Knows its own file and the files that it names, not how they came.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Shard};
use crate::error::Error;

/// Name of the manifest at the volume's root.
pub const FILE: &str = "kimi-manifest.json";
/// A manifest of 100 shards has 20 KB.
const MAX_BYTES: u64 = 16 << 20;

/// A complete, verified artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub repo: String,
    /// 40 hex digits.
    pub commit: String,
    /// See [`crate::Artifact::digest`].
    pub digest: String,
    /// In path order; the first is the one to open.
    pub files: Vec<ManifestFile>,
    /// Of all files together.
    pub bytes: u64,
}

/// A file of the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Below the manifest's directory.
    pub path: String,
    pub size: u64,
    pub sha256: String,
}

impl From<&Shard> for ManifestFile {
    fn from(Shard { path, size, sha256 }: &Shard) -> Self {
        Self {
            path: path.clone(),
            size: *size,
            sha256: sha256.clone(),
        }
    }
}

impl Manifest {
    pub(crate) fn of(artifact: &Artifact) -> Self {
        Self {
            repo: artifact.repo.clone(),
            commit: artifact.commit.clone(),
            digest: artifact.digest.clone(),
            files: artifact.shards.iter().map(ManifestFile::from).collect(),
            bytes: artifact.bytes(),
        }
    }

    /// Reads the manifest at the root `dir`; `None` when there is none or it is not readable as one.
    pub fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_BYTES);
        small
            .then(|| fs::read(&path).ok())
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// Whether every file is there with its size. Content was verified before the manifest was written.
    pub fn is_whole(&self, dir: &Path) -> bool {
        let present = |file: &ManifestFile| {
            fs::metadata(dir.join(&file.path))
                .is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
        };
        !self.files.is_empty() && self.files.iter().all(present)
    }

    /// Writes the manifest so that after any crash there is the old one or this one.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let temporary = dir.join(format!(".{FILE}.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(Error::io("writing", &path))
    }
}
