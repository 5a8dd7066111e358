//! What to fetch: the shards of one quant at one commit, and the digest that pins them. Knows the hub and the
//! selection rule, not the volume.

use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::hub::{Hub, Listed};
use crate::resolve;

/// What a user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `OWNER/NAME`.
    pub repo: String,
    /// Branch, tag or commit id.
    pub revision: String,
    /// Directory or start of file names, where the quant alone does not decide.
    pub path: Option<String>,
    pub quant: String,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Path inside the repository and below the volume's root.
    pub path: String,
    /// Bytes, at least 1.
    pub size: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

/// A quant at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub repo: String,
    /// 40 hex digits.
    pub commit: String,
    /// Directory or file prefix of the shards.
    pub path: String,
    /// In path order.
    pub shards: Vec<Shard>,
    /// SHA-256 over the lines `<path> <size> <sha256>\n` of the shards in path order, 64 hex digits.
    pub digest: String,
}

impl Artifact {
    /// Resolves `source` on `hub`.
    ///
    /// # Errors
    /// All of [`Hub::commit`], [`Hub::files`] and [`resolve::select`]; [`Error::ChecksumUnknown`] when a shard is not
    /// in LFS.
    pub async fn find(hub: &Hub, source: &Source) -> Result<Self, Error> {
        let commit = hub.commit(&source.repo, &source.revision).await?;
        let files = hub.files(&source.repo, &commit).await?;
        let selection =
            resolve::select(&source.repo, &files, source.path.as_deref(), &source.quant)?;
        let shards = selection
            .files
            .into_iter()
            .map(Shard::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        if shards
            .iter()
            .try_fold(0_u64, |sum, shard| sum.checked_add(shard.size))
            .is_none()
        {
            return Err(Error::BadAnswer {
                what: source.repo.clone(),
                detail: "sizes beyond 2^64".into(),
            });
        }
        let digest = digest(&shards);
        Ok(Self {
            repo: source.repo.clone(),
            commit,
            path: selection.path,
            shards,
            digest,
        })
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.size).sum()
    }
}

impl TryFrom<Listed> for Shard {
    type Error = Error;

    fn try_from(file: Listed) -> Result<Self, Error> {
        let Listed { path, size, sha256 } = file;
        if size == 0 {
            return Err(Error::SizeMismatch {
                path,
                listed: 1,
                found: 0,
            });
        }
        match sha256 {
            Some(sha256) => Ok(Self { path, size, sha256 }),
            None => Err(Error::ChecksumUnknown { path }),
        }
    }
}

impl From<&Shard> for Listed {
    fn from(shard: &Shard) -> Self {
        Self {
            path: shard.path.clone(),
            size: shard.size,
            sha256: Some(shard.sha256.clone()),
        }
    }
}

/// SHA-256, in hex, over the lines `<path> <size> <sha256>\n` of the shards in path order: it names the content of an
/// artifact wherever it comes from.
pub(crate) fn digest(shards: &[Shard]) -> String {
    let mut hash = Sha256::new();
    for shard in shards {
        hash.update(format!("{} {} {}\n", shard.path, shard.size, shard.sha256));
    }
    hex(&hash.finalize())
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
