//! API keys from a file that may change while we serve, as a mounted Secret does. It must not know
//! where the file comes from, and never keeps or logs a key in clear.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{app::App, error::ApiError};

/// Largest key file that is read.
const MAX_FILE: u64 = 1 << 20;
/// The file's stamp is looked at this often at most.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there or not readable.
    #[error("API key file {path}: {source}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error("API key file {0} holds no key: put one key on each line")]
    Empty(PathBuf),
    /// The file is not a list of keys.
    #[error("API key file {path} has {bytes} bytes, at most {MAX_FILE} are read")]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// Keys as SHA-256 digests: comparing digests takes the same time whatever the key's length.
#[derive(Debug)]
pub struct ApiKeys {
    path: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    digests: Vec<[u8; 32]>,
    stamp: Stamp,
    checked: Instant,
}

/// Tells two versions of the file apart without reading it: inode, modification time, bytes. A
/// Secret's update swaps a symlink, so the path then leads to another inode.
type Stamp = (u64, Option<SystemTime>, u64);

impl ApiKeys {
    /// Reads the keys, one per line; blank lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// [`KeyError`] when the file is missing, too large or holds no key.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let path = path.into();
        let (digests, stamp) = read(&path)?;
        let current = Mutex::new(Current {
            digests,
            stamp,
            checked: Instant::now(),
        });
        Ok(Self { path, current })
    }

    /// Whether `key` is one of the file's, as the file is now. A file that vanished or broke keeps
    /// its last good keys: a rotation in progress must lock nobody out.
    fn accepts(&self, key: &str) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= CHECK_EVERY {
            current.checked = Instant::now();
            self.refresh(&mut current);
        }
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut found = subtle::Choice::from(0);
        for known in &current.digests {
            found |= known.ct_eq(&digest);
        }
        found.into()
    }

    fn refresh(&self, current: &mut Current) {
        if stamp(&self.path).is_ok_and(|stamp| stamp == current.stamp) {
            return;
        }
        match read(&self.path) {
            Ok((digests, stamp)) => {
                tracing::info!(keys = digests.len(), "API key file changed, read again");
                current.digests = digests;
                current.stamp = stamp;
            }
            Err(error) => tracing::warn!(%error, "keeping the API keys read before"),
        }
    }
}

fn stamp(path: &Path) -> Result<Stamp, KeyError> {
    let file = fs::metadata(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok((file.ino(), file.modified().ok(), file.len()))
}

fn read(path: &Path) -> Result<(Vec<[u8; 32]>, Stamp), KeyError> {
    // Stamped before it is read: a change in between is read again, never missed.
    let stamp = stamp(path)?;
    if stamp.2 > MAX_FILE {
        return Err(KeyError::TooLarge {
            path: path.to_owned(),
            bytes: stamp.2,
        });
    }
    let text = fs::read_to_string(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    let digests: Vec<[u8; 32]> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|key| Sha256::digest(key.as_bytes()).into())
        .collect();
    if digests.is_empty() {
        return Err(KeyError::Empty(path.to_owned()));
    }
    Ok((digests, stamp))
}

/// Lets a request pass when it carries a key, or when the server needs none.
pub(crate) async fn require_key(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(keys) = &app.config.api_keys {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim());
        match given {
            None => return ApiError::KeyMissing.into_response(),
            Some(key) if !keys.accepts(key) => return ApiError::KeyWrong.into_response(),
            Some(_) => {}
        }
    }
    next.run(request).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn expire(keys: &ApiKeys) {
        keys.current.lock().unwrap().checked -= CHECK_EVERY;
    }

    #[test]
    fn keys_follow_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "# team a\nalpha\n\n beta \n").unwrap();
        let keys = ApiKeys::open(&path).unwrap();
        assert!(keys.accepts("alpha") && keys.accepts("beta"));
        assert!(!keys.accepts("") && !keys.accepts("# team a") && !keys.accepts("alph"));

        fs::write(&path, "gamma\n").unwrap();
        expire(&keys);
        assert!(keys.accepts("gamma") && !keys.accepts("alpha"));

        fs::remove_file(&path).unwrap();
        expire(&keys);
        assert!(
            keys.accepts("gamma"),
            "a vanished file keeps the last good keys"
        );
        fs::write(&path, "\n").unwrap();
        expire(&keys);
        assert!(keys.accepts("gamma"), "so does an empty one");
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(matches!(ApiKeys::open(&path), Err(KeyError::Read { .. })));
        fs::write(&path, "# nothing\n").unwrap();
        assert!(matches!(ApiKeys::open(&path), Err(KeyError::Empty(_))));
    }
}
