//! Everything that can end a fetch, with what a user can do about it. Whether trying again can help is part of the
//! error, because the Job's exit code depends on it. Knows no HTTP library.

use std::io;
use std::path::{Path, PathBuf};

/// Why metadata or an artifact could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("repo {repo} has no quant '{quant}'{under}; it has: {has}", has = list(.has))]
    QuantNotFound {
        repo: String,
        quant: String,
        under: String,
        has: Vec<String>,
    },
    #[error("quant '{quant}' names several files sets in {repo}: {found}; set source.huggingFace.path to one of them", found = .found.join(", "))]
    QuantAmbiguous {
        repo: String,
        quant: String,
        found: Vec<String>,
    },
    #[error(
        "{repo} lacks {missing} of a set of {count} shards; choose another quant or revision, or ask the repo's owner"
    )]
    MissingShard {
        repo: String,
        missing: String,
        count: u32,
    },
    #[error(
        "the hub {endpoint} has no model repo {repo} ({detail}); check the name and, if the repo is private, the token"
    )]
    RepoNotFound {
        endpoint: String,
        repo: String,
        detail: String,
    },
    #[error("repo {repo} has no revision '{revision}'; use a branch, a tag or a full commit id")]
    RevisionNotFound { repo: String, revision: String },
    #[error(
        "repo {repo} is gated: accept its terms on the hub and give a token of that account in tokenSecretRef ({detail})"
    )]
    Gated { repo: String, detail: String },
    #[error(
        "the hub {endpoint} refuses the token for {repo} ({detail}); renew the token in the Secret"
    )]
    Unauthorized {
        endpoint: String,
        repo: String,
        detail: String,
    },
    #[error("cannot reach {url}: {detail}; check the endpoint, the proxy and the CA bundle")]
    HubUnreachable { url: String, detail: String },
    #[error(
        "the hub {url} limits requests ({detail}); it will be tried again later, a token raises the limit"
    )]
    RateLimited { url: String, detail: String },
    #[error("{url} does not serve byte ranges ({detail}); use an endpoint that does")]
    RangesUnsupported { url: String, detail: String },
    #[error(
        "the hub lists no SHA-256 for {path}, so it cannot be verified; choose files that the repo keeps in LFS"
    )]
    ChecksumUnknown { path: String },
    #[error("{path}: not a usable {what}")]
    BadName { path: String, what: &'static str },
    #[error("the hub's answer for {what} makes no sense: {detail}")]
    BadAnswer { what: String, detail: String },
    #[error(
        "the shards in {repo} have digest {found}, not {expected}: the source changed after it was inspected; plan again"
    )]
    DigestMismatch {
        repo: String,
        expected: String,
        found: String,
    },
    #[error(
        "{path} has {found} bytes at its source, but the hub lists {listed}; the upload or a mirror is broken"
    )]
    SizeMismatch {
        path: String,
        listed: u64,
        found: u64,
    },
    #[error(
        "{path} has SHA-256 {found}, the hub lists {expected}, twice in a row; check the mirror, the proxy and the disk"
    )]
    ChecksumMismatch {
        path: String,
        expected: String,
        found: String,
    },
    #[error("{path} on the volume has SHA-256 {found}, and should have {expected}; copy it again")]
    ChecksumDiffers {
        path: String,
        expected: String,
        found: String,
    },
    #[error(
        "{dir} has {free} bytes free and {needed} more are needed; enlarge the volume (storage.headroom) or free space"
    )]
    DiskFull {
        dir: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error(
        "cannot write to {dir} as uid {uid}, gid {gid} ({source}); give the pod an fsGroup and check that the volume's \
         driver applies it (CSIDriver fsGroupPolicy)"
    )]
    VolumeNotWritable {
        dir: PathBuf,
        uid: u32,
        gid: u32,
        source: io::Error,
    },
    #[error(
        "the token file {file} is missing or empty; create the Secret and the key that tokenSecretRef names"
    )]
    SecretMissing { file: PathBuf },
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    /// One CamelCase word, fit for a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::QuantNotFound { .. } => "QuantNotFound",
            Self::QuantAmbiguous { .. } => "QuantAmbiguous",
            Self::MissingShard { .. } => "MissingShard",
            Self::RepoNotFound { .. } => "RepoNotFound",
            Self::RevisionNotFound { .. } => "RevisionNotFound",
            Self::Gated { .. } => "Gated",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::HubUnreachable { .. } => "HubUnreachable",
            Self::RateLimited { .. } => "RateLimited",
            Self::RangesUnsupported { .. } => "RangesUnsupported",
            Self::ChecksumUnknown { .. } => "ChecksumUnknown",
            Self::BadName { .. } => "InvalidSource",
            Self::BadAnswer { .. } => "BadHubAnswer",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::SizeMismatch { .. } => "SizeMismatch",
            Self::ChecksumMismatch { .. } | Self::ChecksumDiffers { .. } => "ChecksumMismatch",
            Self::DiskFull { .. } => "DiskFull",
            Self::VolumeNotWritable { .. } => "VolumeNotWritable",
            Self::SecretMissing { .. } => "SecretMissing",
            Self::Io { .. } => "IoError",
        }
    }

    /// Whether the same attempt must fail again until somebody changes the source or the spec.
    pub fn permanent(&self) -> bool {
        match self {
            Self::QuantNotFound { .. }
            | Self::QuantAmbiguous { .. }
            | Self::MissingShard { .. }
            | Self::RepoNotFound { .. }
            | Self::RevisionNotFound { .. }
            | Self::Gated { .. }
            | Self::Unauthorized { .. }
            | Self::RangesUnsupported { .. }
            | Self::ChecksumUnknown { .. }
            | Self::BadName { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::ChecksumMismatch { .. }
            | Self::ChecksumDiffers { .. } => true,
            Self::HubUnreachable { .. }
            | Self::RateLimited { .. }
            | Self::BadAnswer { .. }
            | Self::DiskFull { .. }
            | Self::VolumeNotWritable { .. }
            | Self::SecretMissing { .. }
            | Self::Io { .. } => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// At most 40 names, so that the message fits a termination log.
fn list(names: &[String]) -> String {
    match names {
        [] => "no GGUF files at all".to_owned(),
        [..] if names.len() > 40 => {
            format!("{}, and {} more", names[..40].join(", "), names.len() - 40)
        }
        [..] => names.join(", "),
    }
}
