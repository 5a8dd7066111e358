//! The few Linux calls that keep a huge file out of the page cache and on the disk. Knows file descriptors only. Errors
//! of mere advice are dropped: some network file systems refuse it, and nothing depends on it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, fdatasync, statvfs};
use rustix::io::Errno;

/// Starts writing `start..start + bytes` back without waiting, so that dirty pages never pile up.
pub(crate) fn start_writeback(file: &File, start: u64, bytes: u64) {
    let (Ok(start), Ok(bytes)) = (i64::try_from(start), i64::try_from(bytes)) else {
        return;
    };
    // SAFETY: the call takes no pointers, and the descriptor is open for as long as `file` is borrowed.
    let _advice = unsafe {
        libc::sync_file_range(file.as_raw_fd(), start, bytes, libc::SYNC_FILE_RANGE_WRITE)
    };
}

/// Lets the kernel forget the cached pages of `start..start + bytes`; dirty pages stay until written.
pub(crate) fn forget_pages(file: &File, start: u64, bytes: u64) {
    let _advice = fadvise(file, start, NonZeroU64::new(bytes), Advice::DontNeed);
}

/// Announces one pass from start to end.
pub(crate) fn will_read_once(file: &File) {
    let _advice = fadvise(file, 0, None, Advice::Sequential);
}

/// Waits until the file's content is on the disk.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    Ok(fdatasync(file)?)
}

/// Makes `file` exactly `bytes` long, with the space reserved where the file system can.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

/// Bytes that an unprivileged process may still write below `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether an error means that there is no more space, on the disk or in a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Effective user and group of this process.
pub(crate) fn ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}
