//! SHA-256 of a file on the disk, without filling the page cache with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::artifact::hex;
use crate::sys;

/// Bytes read at a time; pages are dropped after every [`FORGET`].
const BLOCK: usize = 1 << 20;
const FORGET: u64 = 16 << 20;

/// Lower-case hex SHA-256 of the file at `path`. Blocks the thread for as long as the disk needs.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    sys::will_read_once(&file);
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    let (mut at, mut forgotten) = (0, 0);
    loop {
        let read = file.read(&mut block)?;
        hash.update(&block[..read]);
        at += read as u64;
        if read == 0 || at - forgotten >= FORGET {
            sys::forget_pages(&file, forgotten, at - forgotten);
            forgotten = at;
        }
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
    }
}
