//! Moves pieces from a signed URL to the disk over several connections. Each piece is read by range, written as it
//! comes, synced, dropped from the page cache and only then recorded. Cut bodies go on from the byte reached; slow and
//! silent ones are given up by a watchdog; a refused URL is asked for again; the hub's own wait is kept by all
//! connections. It must not know which shards make an artifact, nor when one is done.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::artifact::Shard;
use crate::backoff::{Trouble, pause};
use crate::download::Options;
use crate::error::Error;
use crate::http::{self, Address, RangeTrouble};
use crate::hub::{Hub, Listed};
use crate::ledger::Ledger;
use crate::progress::Meter;
use crate::sys;
use crate::volume::full_or;

/// Bytes collected before one write.
const BLOCK: usize = 1 << 20;
/// A size that differs may be a stale cache once or twice, not more.
const MAX_SIZE_STRIKES: u32 = 3;

/// A shard in the making.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: Shard,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    pub(crate) ledger: Mutex<Ledger>,
    /// The address in use and how many there were before it; asked for when the first piece starts.
    address: tokio::sync::Mutex<(u32, Option<Address>)>,
}

impl Part {
    pub(crate) fn new(shard: Shard, path: PathBuf, file: File, ledger: Ledger) -> Self {
        let (file, ledger) = (Arc::new(file), Mutex::new(ledger));
        Self {
            shard,
            path,
            file,
            ledger,
            address: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn with_ledger<T>(&self, action: impl FnOnce(&mut Ledger) -> T) -> T {
        action(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Transfer {
    hub: Hub,
    repo: String,
    commit: String,
    options: Options,
    meter: Arc<Meter>,
    /// When a byte last came, on any connection.
    last_byte: Mutex<Instant>,
    /// Nobody asks before this: the hub said so to one, and counts all.
    not_before: Mutex<Instant>,
}

/// A moment that several connections move.
fn get(moment: &Mutex<Instant>) -> Instant {
    *moment.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(moment: &Mutex<Instant>, value: Instant) {
    *moment.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

impl Transfer {
    pub(crate) fn new(
        hub: Hub,
        repo: &str,
        commit: &str,
        options: Options,
        meter: Arc<Meter>,
    ) -> Self {
        let now = Instant::now();
        let (repo, commit) = (repo.to_owned(), commit.to_owned());
        Self {
            hub,
            repo,
            commit,
            options,
            meter,
            last_byte: Mutex::new(now),
            not_before: Mutex::new(now),
        }
    }

    /// Fetches one piece until it is recorded, or until nothing has come on any connection for
    /// [`Options::patience`].
    pub(crate) async fn piece(&self, part: &Arc<Part>, index: u32) -> Result<(), Error> {
        let (start, end) = part.with_ledger(|ledger| ledger.range(index));
        let (mut at, mut strikes, mut size_strikes) = (start, 0, 0);
        while at < end {
            tokio::time::sleep_until(get(&self.not_before)).await;
            let before = at;
            let (generation, outcome) = self.attempt(part, &mut at, end).await;
            if at > before {
                strikes = 0;
            }
            let trouble = match outcome {
                Ok(()) => continue,
                Err(RangeTrouble::Other(trouble)) => trouble,
                Err(RangeTrouble::Address(error)) => {
                    self.drop_address(part, generation).await;
                    if strikes == 0 {
                        // The usual case: the signature expired, and the next address works.
                        strikes = 1;
                        continue;
                    }
                    Trouble::Retry { error, after: None }
                }
                Err(RangeTrouble::Size(error)) => {
                    self.drop_address(part, generation).await;
                    size_strikes += 1;
                    if size_strikes >= MAX_SIZE_STRIKES {
                        return Err(error);
                    }
                    Trouble::Retry { error, after: None }
                }
            };
            strikes += 1;
            self.wait(trouble, strikes, &part.shard.path).await?;
        }
        self.commit_piece(part, index, start, end).await
    }

    /// Waits after a failure, or gives up.
    async fn wait(&self, trouble: Trouble, strikes: u32, path: &str) -> Result<(), Error> {
        let (error, after) = match trouble {
            Trouble::Fatal(error) => return Err(error),
            Trouble::Retry { error, after } => (error, after),
        };
        let pause = pause(strikes, after);
        let silent = get(&self.last_byte).elapsed();
        if silent + pause > self.options.patience {
            return Err(error);
        }
        if after.is_some() {
            set(
                &self.not_before,
                get(&self.not_before).max(Instant::now() + pause),
            );
        }
        tracing::warn!(path, %error, ?pause, "trying again");
        self.meter.say(format!("{}: {error}", error.reason()));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// One request for `at..end`; `at` moves with every byte written.
    async fn attempt(
        &self,
        part: &Arc<Part>,
        at: &mut u64,
        end: u64,
    ) -> (u32, Result<(), RangeTrouble>) {
        let (generation, address) = match self.address(part).await {
            Ok(found) => found,
            Err(error) => return (0, Err(RangeTrouble::Other(Trouble::Fatal(error)))),
        };
        let range = (*at, end, part.shard.size);
        let outcome =
            match http::open_range(&self.hub.content, &address, range, &part.shard.path).await {
                Ok(response) => self
                    .receive(part, response, at, end, &address)
                    .await
                    .map_err(RangeTrouble::Other),
                Err(trouble) => Err(trouble),
            };
        (generation, outcome)
    }

    async fn address(&self, part: &Part) -> Result<(u32, Address), Error> {
        let mut slot = part.address.lock().await;
        let address = match &slot.1 {
            Some(address) => address.clone(),
            None => {
                let address = self
                    .hub
                    .address(&self.repo, &self.commit, &Listed::from(&part.shard))
                    .await?;
                slot.1 = Some(address.clone());
                address
            }
        };
        Ok((slot.0, address))
    }

    /// Forgets an address, unless another connection already did.
    async fn drop_address(&self, part: &Part, generation: u32) {
        let mut slot = part.address.lock().await;
        if slot.0 == generation {
            *slot = (generation + 1, None);
        }
    }

    async fn receive(
        &self,
        part: &Arc<Part>,
        mut response: reqwest::Response,
        at: &mut u64,
        end: u64,
        address: &Address,
    ) -> Result<(), Trouble> {
        let mut block = Vec::with_capacity(BLOCK);
        let mut watchdog = Watchdog::new(&self.options);
        let mut outcome = Ok(());
        while *at + (block.len() as u64) < end {
            let chunk = match watchdog.guard(response.chunk()).await {
                None => {
                    let (url, detail) = (http::shown(&address.url), watchdog.verdict());
                    outcome = Err(Trouble::Retry {
                        error: Error::HubUnreachable { url, detail },
                        after: None,
                    });
                    break;
                }
                Some(Ok(Some(chunk))) => chunk,
                Some(Ok(None)) => {
                    let (url, detail) =
                        (http::shown(&address.url), "the body ended early".to_owned());
                    outcome = Err(Trouble::Retry {
                        error: Error::HubUnreachable { url, detail },
                        after: None,
                    });
                    break;
                }
                Some(Err(error)) => {
                    outcome = Err(http::unreachable(&address.url, &error));
                    break;
                }
            };
            // A body longer than asked for is cut to what was asked for.
            let room = end - *at - block.len() as u64;
            let chunk = &chunk[..chunk.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            watchdog.bytes += chunk.len() as u64;
            self.meter.add(chunk.len() as u64);
            set(&self.last_byte, Instant::now());
            block.extend_from_slice(chunk);
            if block.len() >= BLOCK {
                let started = Instant::now();
                block = self.write(part, block, at).await?;
                // A slow disk is no fault of the connection.
                watchdog.ends += started.elapsed();
            }
        }
        // What came before a cut is kept: the next request goes on from there.
        self.write(part, block, at).await?;
        outcome
    }

    /// Writes `block` at `at` and gives the emptied buffer back.
    async fn write(
        &self,
        part: &Arc<Part>,
        mut block: Vec<u8>,
        at: &mut u64,
    ) -> Result<Vec<u8>, Trouble> {
        let (file, start, bytes) = (part.file.clone(), *at, block.len() as u64);
        let write = move || {
            file.write_all_at(&block, start)?;
            sys::start_writeback(&file, start, bytes);
            block.clear();
            Ok(block)
        };
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(std::io::Error::other)
            .flatten();
        let block = written.map_err(full_or("writing", &part.path, bytes))?;
        *at += bytes;
        Ok(block)
    }

    /// On the disk, out of the page cache, into the ledger: in this order.
    async fn commit_piece(
        &self,
        part: &Arc<Part>,
        index: u32,
        start: u64,
        end: u64,
    ) -> Result<(), Error> {
        let owned = part.clone();
        let commit = move || {
            sys::sync_data(&owned.file)?;
            sys::forget_pages(&owned.file, start, end - start);
            owned.with_ledger(|ledger| ledger.record(index))
        };
        let done = tokio::task::spawn_blocking(commit)
            .await
            .map_err(std::io::Error::other)
            .flatten();
        done.map_err(full_or("recording", &part.path, 0))
    }
}

/// Ends a connection that brings fewer than [`Options::min_bytes_per_second`] over [`Options::stall`].
struct Watchdog {
    window: Duration,
    floor: u64,
    ends: Instant,
    /// Received in this window.
    bytes: u64,
}

impl Watchdog {
    fn new(options: &Options) -> Self {
        let floor = options
            .min_bytes_per_second
            .saturating_mul(options.stall.as_secs().max(1));
        Self {
            window: options.stall,
            floor,
            ends: Instant::now() + options.stall,
            bytes: 0,
        }
    }

    /// What `work` yields; `None` when a window ended below the floor first.
    async fn guard<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout_at(self.ends, work.as_mut()).await {
                Ok(value) => return Some(value),
                Err(_) if self.bytes < self.floor.max(1) => return None,
                Err(_) => (self.ends, self.bytes) = (Instant::now() + self.window, 0),
            }
        }
    }

    fn verdict(&self) -> String {
        format!(
            "stalled: {} bytes in {} s",
            self.bytes,
            self.window.as_secs()
        )
    }
}
