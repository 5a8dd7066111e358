//! The memory of an interrupted shard: which of its pieces are on the disk. A text file, one line per piece, appended
//! after the piece was synced and itself synced after each line. It must not know where pieces come from.
//!
//! ```text
//! kimi-ledger 1 <sha256> <size> <piece bytes> <path>
//! piece 0
//! piece 7
//! verified 1767225600.123456789
//! ```
//! A crash may tear the last line; everything from the first line that does not parse is cut off. A ledger of another
//! file, size or checksum counts for nothing. `verified` holds the modification time of the finished file: when the
//! file was touched since, it is hashed again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::artifact::{Shard, hex};
use crate::error::Error;
use crate::sys;

/// Largest piece, in bytes.
pub const MAX_PIECE: u64 = 16 << 20;
/// Smallest piece, except the last of a file.
pub const MIN_PIECE: u64 = 256 << 10;

/// The pieces of one shard and the file that remembers them.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    head: String,
    size: u64,
    piece: u64,
    done: Vec<bool>,
    verified: Option<String>,
}

/// Piece size for a file: 16 MiB, less for small files so that every connection has two of them.
pub fn piece_bytes(size: u64, connections: usize) -> u64 {
    let share = size.div_ceil(2 * connections.max(1) as u64);
    share
        .next_multiple_of(MIN_PIECE)
        .clamp(MIN_PIECE, MAX_PIECE)
}

/// File name, without extension, of a shard's records: of its path, size and checksum.
pub fn key(shard: &Shard) -> String {
    let hash = Sha256::digest(format!("{} {} {}\n", shard.path, shard.size, shard.sha256));
    hex(&hash[..8])
}

impl Ledger {
    /// Opens the ledger of `shard` in `dir`, or starts one with pieces of `piece` bytes. An old ledger keeps its own
    /// piece size.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`] as [`Error::Io`] of kind `StorageFull`.
    pub fn open(dir: &Path, shard: &Shard, piece: u64) -> Result<Self, Error> {
        let path = dir.join(format!("{}.ledger", key(shard)));
        let text = fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let failed = |error| Error::io("opening the ledger", &path)(error);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let fresh = |piece| {
            let head = format!(
                "kimi-ledger 1 {} {} {piece} {}\n",
                shard.sha256, shard.size, shard.path
            );
            let done =
                vec![false; usize::try_from(shard.size.div_ceil(piece)).unwrap_or(usize::MAX)];
            (head, piece, done)
        };
        let kept = text
            .lines()
            .next()
            .and_then(|line| line.split(' ').nth(4)?.parse().ok());
        let kept = kept.filter(|piece| (MIN_PIECE..=MAX_PIECE).contains(piece));
        let (head, piece, done) = fresh(kept.unwrap_or(piece.clamp(MIN_PIECE, MAX_PIECE)));
        let mut ledger = Self {
            path,
            file,
            head,
            size: shard.size,
            piece,
            done,
            verified: None,
        };
        if text.starts_with(&ledger.head) {
            ledger.replay(&text)?;
        } else {
            (ledger.head, ledger.piece, ledger.done) = fresh(piece);
            ledger.clear()?;
        }
        Ok(ledger)
    }

    fn replay(&mut self, text: &str) -> Result<(), Error> {
        let mut good = self.head.len();
        for line in text[good..].split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            let index = |text: &str| {
                text.parse::<usize>()
                    .ok()
                    .filter(|index| *index < self.done.len())
            };
            match line.split_once(' ') {
                Some(("piece", number)) => match index(number) {
                    Some(index) => self.done[index] = true,
                    None => break,
                },
                Some(("verified", stamp)) => self.verified = Some(stamp.to_owned()),
                _ => break,
            }
            good += line.len() + 1;
        }
        self.file
            .set_len(good as u64)
            .map_err(Error::io("repairing the ledger", &self.path))
    }

    /// Bytes per piece.
    pub fn piece(&self) -> u64 {
        self.piece
    }

    /// Pieces that are not on the disk, in order.
    pub fn missing(&self) -> Vec<u32> {
        let missing = self.done.iter().enumerate().filter(|(_, done)| !**done);
        missing
            .filter_map(|(index, _)| u32::try_from(index).ok())
            .collect()
    }

    /// Start and end of a piece.
    pub fn range(&self, index: u32) -> (u64, u64) {
        let start = u64::from(index) * self.piece;
        (start, (start + self.piece).min(self.size))
    }

    /// Bytes of the pieces that are on the disk.
    pub fn bytes_done(&self) -> u64 {
        self.size
            - self
                .missing()
                .into_iter()
                .map(|index| self.range(index))
                .map(|(a, b)| b - a)
                .sum::<u64>()
    }

    /// Remembers a piece. Its bytes must be on the disk already.
    ///
    /// # Errors
    /// When the line cannot be written and synced; the piece then counts as missing.
    pub fn record(&mut self, index: u32) -> io::Result<()> {
        self.append(&format!("piece {index}\n"))?;
        if let Some(done) = self.done.get_mut(index as usize) {
            *done = true;
        }
        Ok(())
    }

    /// Remembers that the finished file `file` has the right checksum.
    ///
    /// # Errors
    /// When the line cannot be written and synced.
    pub fn record_verified(&mut self, file: &Path) -> io::Result<()> {
        let stamp = stamp(file)?;
        self.append(&format!("verified {stamp}\n"))?;
        self.verified = Some(stamp);
        Ok(())
    }

    /// Whether `file` was verified and not touched since.
    pub fn is_verified(&self, file: &Path) -> bool {
        let same_size =
            fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() == self.size);
        same_size && self.verified.is_some() && stamp(file).ok() == self.verified
    }

    /// Forgets all pieces.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn clear(&mut self) -> Result<(), Error> {
        self.done.fill(false);
        self.verified = None;
        let head = self.head.clone();
        let cleared = self.file.set_len(0).and_then(|()| self.append(&head));
        cleared.map_err(Error::io("clearing the ledger", &self.path))
    }

    /// One write, so that a crash tears at most this line.
    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        sys::sync_data(&self.file)
    }
}

fn stamp(file: &Path) -> io::Result<String> {
    let modified = fs::metadata(file)?.modified()?;
    let since = modified
        .duration_since(UNIX_EPOCH)
        .or_else(|_| SystemTime::now().duration_since(UNIX_EPOCH));
    Ok(since
        .map(|time| format!("{}.{:09}", time.as_secs(), time.subsec_nanos()))
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shard() -> Shard {
        Shard {
            path: "Q/a b.gguf".into(),
            size: 3 * MIN_PIECE + 10,
            sha256: "ab".repeat(32),
        }
    }

    #[test]
    fn piece_sizes_follow_the_file() {
        assert_eq!(piece_bytes(1, 8), MIN_PIECE);
        assert_eq!(piece_bytes(5_000_000, 8), 2 * MIN_PIECE);
        assert_eq!(piece_bytes(50_000_000_000, 8), MAX_PIECE);
        assert_eq!(piece_bytes(u64::MAX, 0), MAX_PIECE);
    }

    #[test]
    fn pieces_survive_and_a_torn_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), &shard(), MIN_PIECE).unwrap();
        assert_eq!(ledger.missing(), [0, 1, 2, 3]);
        ledger.record(3).unwrap();
        ledger.record(1).unwrap();
        let path = dir.path().join(format!("{}.ledger", key(&shard())));
        for torn in [
            "piece 2",
            "pie",
            "\0\0\0\0",
            "piece 99\npiece 2\n",
            "piece x\n",
        ] {
            let whole = fs::read(&path).unwrap();
            fs::write(&path, [whole.as_slice(), torn.as_bytes()].concat()).unwrap();
            // Another piece size is asked for: the ledger's own stays.
            let again = Ledger::open(dir.path(), &shard(), MAX_PIECE).unwrap();
            assert_eq!(again.missing(), [0, 2], "{torn:?}");
            assert_eq!(
                (again.piece(), again.bytes_done()),
                (MIN_PIECE, MIN_PIECE + 10)
            );
            assert_eq!(fs::read(&path).unwrap(), whole, "{torn:?} is cut off");
        }
        Ledger::open(dir.path(), &shard(), MIN_PIECE)
            .unwrap()
            .record(0)
            .unwrap();
        assert_eq!(
            Ledger::open(dir.path(), &shard(), MIN_PIECE)
                .unwrap()
                .missing(),
            [2]
        );
    }

    #[test]
    fn a_ledger_of_something_else_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path(), &shard(), MIN_PIECE)
            .unwrap()
            .record(0)
            .unwrap();
        let path = dir.path().join(format!("{}.ledger", key(&shard())));
        let text = fs::read_to_string(&path).unwrap();
        for other in [
            text.replace("abab", "cdcd"),
            text.replace("ledger 1", "ledger 2"),
            String::new(),
        ] {
            fs::write(&path, other).unwrap();
            assert_eq!(
                Ledger::open(dir.path(), &shard(), MIN_PIECE)
                    .unwrap()
                    .missing()
                    .len(),
                4
            );
        }
        let other = Shard { size: 5, ..shard() };
        assert_ne!(key(&other), key(&shard()));
    }

    #[test]
    fn a_touched_file_is_not_verified() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, vec![0; shard().size as usize]).unwrap();
        let mut ledger = Ledger::open(dir.path(), &shard(), MIN_PIECE).unwrap();
        assert!(!ledger.is_verified(&file));
        ledger.record_verified(&file).unwrap();
        assert!(
            Ledger::open(dir.path(), &shard(), MIN_PIECE)
                .unwrap()
                .is_verified(&file)
        );
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(UNIX_EPOCH)
            .unwrap();
        assert!(!ledger.is_verified(&file));
    }
}
