//! The directory that an artifact is fetched into: is it ours to write, is it ours alone, is there room. Files in the
//! making are `.kimi/<key>.part` beside their ledgers; finished ones have their repository path. Knows no network.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::artifact::Shard;
use crate::error::Error;
use crate::ledger::{Ledger, key, piece_bytes};
use crate::sys;

/// Directory of ledgers and unfinished files, below the root.
const STATE: &str = ".kimi";
/// Room for ledgers, manifest and directories.
const SPARE: u64 = 1 << 20;

/// A locked volume. The lock ends with the value, or with the process however it dies.
#[derive(Debug)]
pub(crate) struct Volume {
    root: PathBuf,
    _lock: File,
}

impl Volume {
    /// Takes the volume for this process. Waits while another one has it, saying so through `waiting`.
    pub(crate) async fn open(root: &Path, waiting: impl Fn()) -> Result<Self, Error> {
        let state = root.join(STATE);
        let not_writable = |source: io::Error| {
            let (uid, gid) = sys::ids();
            match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Error::VolumeNotWritable {
                        dir: root.to_owned(),
                        uid,
                        gid,
                        source,
                    }
                }
                _ => full_or("creating", &state, 0)(source),
            }
        };
        fs::create_dir_all(&state).map_err(not_writable)?;
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(state.join("lock"))
            .map_err(not_writable)?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(%error, "this file system has no locks: make sure that nobody else writes to it");
                    break;
                }
            }
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// Where a finished shard lies.
    pub(crate) fn place(&self, shard: &Shard) -> PathBuf {
        self.root.join(&shard.path)
    }

    /// Where a shard in the making lies.
    pub(crate) fn part(&self, shard: &Shard) -> PathBuf {
        self.root.join(STATE).join(format!("{}.part", key(shard)))
    }

    pub(crate) fn ledger(&self, shard: &Shard, connections: usize) -> Result<Ledger, Error> {
        let state = self.root.join(STATE);
        Ledger::open(&state, shard, piece_bytes(shard.size, connections)).map_err(|error| {
            match error {
                Error::Io { what, path, source } => full_or(what, &path, SPARE)(source),
                other => other,
            }
        })
    }

    /// Refuses before the first byte when `shards` cannot all fit beside what is already there.
    pub(crate) fn check_space<'a>(
        &self,
        shards: impl Iterator<Item = &'a Shard>,
    ) -> Result<(), Error> {
        let missing = |shard: &Shard| {
            let allocated = fs::metadata(self.part(shard)).map_or(0, |meta| meta.blocks() * 512);
            shard.size.saturating_sub(allocated)
        };
        let needed = shards.map(missing).fold(0, u64::saturating_add);
        let free = sys::free_bytes(&self.root)
            .map_err(Error::io("asking for the free space of", &self.root))?;
        if needed > 0 && needed.saturating_add(SPARE) > free {
            return Err(Error::DiskFull {
                dir: self.root.clone(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// Opens the part file of `shard` at full length. When it was not there at that length, the ledger's pieces are
    /// not either.
    pub(crate) fn open_part(&self, shard: &Shard, ledger: &mut Ledger) -> Result<File, Error> {
        let path = self.part(shard);
        let fits = fs::metadata(&path).is_ok_and(|meta| meta.len() == shard.size);
        let create = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)?;
            sys::reserve(&file, shard.size)?;
            Ok(file)
        };
        if !fits {
            ledger.clear()?;
        }
        let file: io::Result<File> = create();
        let file = file.map_err(full_or("reserving", &path, shard.size))?;
        if !fits {
            // The ledger may speak of the file only once its name is on the disk.
            sync_directory(path.parent().unwrap_or(&self.root))?;
        }
        Ok(file)
    }

    /// Gives a verified part its final name.
    pub(crate) fn finish(&self, shard: &Shard) -> Result<PathBuf, Error> {
        let place = self.place(shard);
        let directory = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(full_or("creating", directory, SPARE))?;
        fs::rename(self.part(shard), &place).map_err(Error::io("renaming to", &place))?;
        sync_directory(directory)?;
        Ok(place)
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("syncing", path))
}

/// The error of a write: [`Error::DiskFull`] where that is what it means.
pub(crate) fn full_or(
    what: &'static str,
    path: &Path,
    needed: u64,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| {
        if !sys::is_full(&source) {
            return Error::Io { what, path, source };
        }
        let dir = path.parent().unwrap_or(&path).to_owned();
        let free = sys::free_bytes(&dir).unwrap_or(0);
        Error::DiskFull { dir, needed, free }
    }
}
