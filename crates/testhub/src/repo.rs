//! One repository on disk as the hub would list it: files with git and LFS ids, and a commit id that follows from
//! their content. Knows paths and bytes, not HTTP. Only files found by this walk are ever served, so a request path
//! cannot leave the root.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// A file of a repository.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) disk: PathBuf,
    /// Git's blob id: of the content, or of the pointer file where the content is in LFS.
    pub(crate) oid: String,
    /// SHA-256 of the content and size of the pointer file, for files in LFS.
    pub(crate) lfs: Option<(String, u64)>,
}

/// A repository at its only commit.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Entry>,
}

/// Digests of files already read, by path, size and modification time.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<Version, Ids>>);

/// A file's path, size and modification time.
type Version = (PathBuf, u64, SystemTime);
/// Git blob id and, for files in LFS, the SHA-256 of the content.
type Ids = (String, Option<String>);

/// Reads repository `name` (`OWNER/REPO`) under `root`; `None` when there is no such directory.
pub(crate) fn read(root: &Path, name: &str, digests: &Digests) -> io::Result<Option<Repo>> {
    if name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'))
    {
        return Ok(None);
    }
    let top = root.join(name);
    if !top.is_dir() {
        return Ok(None);
    }
    let mut files = BTreeMap::new();
    walk(root, &top, &top, digests, &mut files)?;
    let mut commit = Sha1::new();
    for (path, entry) in &files {
        commit.update(format!("{path} {} {}\n", entry.oid, entry.size));
    }
    Ok(Some(Repo {
        commit: hex(&commit.finalize()),
        files,
    }))
}

fn walk(
    root: &Path,
    top: &Path,
    dir: &Path,
    digests: &Digests,
    files: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        // A link may point anywhere inside the root, and nowhere else.
        let Ok(disk) = path.canonicalize() else {
            continue;
        };
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !disk.starts_with(root) {
            continue;
        }
        if disk.is_dir() {
            walk(root, top, &path, digests, files)?;
        } else if let Some(name) = path.strip_prefix(top).ok().and_then(Path::to_str) {
            files.insert(name.to_owned(), entry(disk, digests)?);
        }
    }
    Ok(())
}

fn entry(disk: PathBuf, digests: &Digests) -> io::Result<Entry> {
    let meta = disk.metadata()?;
    let key = (disk.clone(), meta.len(), meta.modified()?);
    let known = digests.0.lock().ok().and_then(|map| map.get(&key).cloned());
    let (sha1, sha256) = match known {
        Some(known) => known,
        None => {
            let in_lfs = disk
                .extension()
                .is_some_and(|e| e == "gguf" || e == "safetensors");
            let read = digest(&disk, meta.len(), in_lfs)?;
            if let Ok(mut map) = digests.0.lock() {
                map.insert(key, read.clone());
            }
            read
        }
    };
    let lfs = sha256.map(|sha256| {
        let pointer = pointer(&sha256, meta.len());
        (sha256, pointer.len() as u64)
    });
    Ok(Entry {
        size: meta.len(),
        disk,
        oid: sha1,
        lfs,
    })
}

fn pointer(sha256: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
}

/// Reads the whole file for its ids.
fn digest(disk: &Path, size: u64, in_lfs: bool) -> io::Result<Ids> {
    let mut file = File::open(disk)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut blob, mut content) = (git_blob(size), Sha256::new());
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if in_lfs {
            content.update(&buffer[..read]);
        } else {
            blob.update(&buffer[..read]);
        }
    }
    if !in_lfs {
        return Ok((hex(&blob.finalize()), None));
    }
    let sha256 = hex(&content.finalize());
    let pointer = pointer(&sha256, size);
    let mut blob = git_blob(pointer.len() as u64);
    blob.update(&pointer);
    Ok((hex(&blob.finalize()), Some(sha256)))
}

fn git_blob(size: u64) -> Sha1 {
    let mut blob = Sha1::new();
    blob.update(format!("blob {size}\0"));
    blob
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
