//! Whether the files under a loaded model are still the ones it was read from: the kernel maps a file, it does not keep
//! it. It must not know what stands in them.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The shards of a model as they were before anything was read from them. The default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Identity)>);

/// What changes when somebody writes to a file, or puts another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

impl Files {
    /// Notes how these files are now.
    ///
    /// # Errors
    /// The first that cannot be looked at, and why.
    pub(crate) fn note(paths: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let note = |path: &PathBuf| match Identity::of(path) {
            Ok(identity) => Ok((path.clone(), identity)),
            Err(error) => Err((path.clone(), error)),
        };
        paths.iter().map(note).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// The first that was written to, replaced or taken away since. One that cannot be looked at for another reason
    /// than that it is gone counts as unchanged: a volume that answers slowly is no damage.
    pub fn changed(&self) -> Option<&Path> {
        let is_changed = |path: &Path, then: Identity| match Identity::of(path) {
            Ok(now) => now != then,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        self.0
            .iter()
            .find(|(path, then)| is_changed(path, *then))
            .map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn written_replaced_and_missing_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a.gguf", "b.gguf"].map(|name| directory.path().join(name));
        for path in &paths {
            std::fs::write(path, "weights").unwrap();
        }
        let noted = || Files::note(&paths).unwrap();
        let files = noted();
        assert_eq!(files.changed(), None);

        // Longer, in place.
        std::fs::write(&paths[1], "other weights").unwrap();
        assert_eq!(files.changed(), Some(paths[1].as_path()));

        // As long and as old, under the same name.
        let files = noted();
        let modified = std::fs::metadata(&paths[0]).unwrap().modified().unwrap();
        let twin = directory.path().join("twin");
        std::fs::write(&twin, "Weights").unwrap();
        let file = std::fs::File::options().write(true).open(&twin).unwrap();
        file.set_modified(modified).unwrap();
        std::fs::rename(&twin, &paths[0]).unwrap();
        assert_eq!(files.changed(), Some(paths[0].as_path()));

        let files = noted();
        std::fs::remove_file(&paths[1]).unwrap();
        assert_eq!(files.changed(), Some(paths[1].as_path()));
        let (path, _) = Files::note(&paths).unwrap_err();
        assert_eq!(path, paths[1]);
    }

    #[test]
    fn nothing_noted_is_nothing_changed() {
        assert_eq!(Files::default().changed(), None);
    }
}
