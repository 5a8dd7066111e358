//! Fetches an artifact onto a volume: what is there already, what is missing, pieces to connections, verification of
//! each shard as soon as it is complete, the manifest last. Knows the order of steps; each step is elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::artifact::{Artifact, Shard};
use crate::check::hash;
use crate::error::Error;
use crate::hub::Hub;
use crate::ledger::Ledger;
use crate::manifest::Manifest;
use crate::progress::{Meter, Progress, State};
use crate::transfer::{Part, Transfer};
use crate::volume::Volume;

/// How often progress is published.
const TICK: Duration = Duration::from_millis(250);
/// More connections only add load to the hub.
const MAX_CONNECTIONS: usize = 64;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root of the volume.
    pub dest: PathBuf,
    /// Parallel ranged requests, 1 to 64.
    pub connections: usize,
    /// Length of the watchdog's window.
    pub stall: Duration,
    /// A connection slower than this over a window is replaced.
    pub min_bytes_per_second: u64,
    /// How long nothing at all may come before the fetch fails. Longer than the hub's window of 300 s.
    pub patience: Duration,
    /// Hash what is on the volume even where it was verified before, and fetch what is wrong again.
    pub verify: bool,
}

impl Options {
    /// 8 connections; a connection below 4 KiB/s over 30 s is replaced; 15 minutes of patience.
    pub fn new(dest: impl Into<PathBuf>) -> Self {
        Self {
            dest: dest.into(),
            connections: 8,
            stall: Duration::from_secs(30),
            min_bytes_per_second: 4 << 10,
            patience: Duration::from_secs(15 * 60),
            verify: false,
        }
    }
}

/// Fetches `artifact` from `hub`. Returns at once when the volume already holds it whole, unless that is to be verified. Interrupted at any point, by
/// dropping the future or by the end of the process, the next call goes on from the pieces that were synced.
///
/// # Errors
/// See [`Error`]. Nothing under a final name is ever incomplete, whatever the error.
pub async fn fetch(
    hub: &Hub,
    artifact: &Artifact,
    options: &Options,
    progress: watch::Sender<Progress>,
) -> Result<Manifest, Error> {
    let meter = Arc::new(Meter::new(progress));
    meter.start(artifact.bytes(), artifact.shards.len());
    let ticker = {
        let meter = meter.clone();
        async move {
            loop {
                tokio::time::sleep(TICK).await;
                meter.tick();
            }
        }
    };
    let outcome = tokio::select! {
        outcome = run(hub, artifact, options, &meter) => outcome,
        () = ticker => return Err(Error::BadAnswer { what: "the clock".into(), detail: "it ended".into() }),
    };
    match &outcome {
        Ok(_) => {
            meter.say("");
            meter.enter(State::Done);
        }
        Err(error) => {
            meter.say(error.to_string());
            meter.enter(State::Failed);
        }
    }
    outcome
}

async fn run(
    hub: &Hub,
    artifact: &Artifact,
    options: &Options,
    meter: &Arc<Meter>,
) -> Result<Manifest, Error> {
    let manifest = Manifest::of(artifact);
    let whole = || {
        !options.verify
            && Manifest::read(&options.dest).as_ref() == Some(&manifest)
            && manifest.is_whole(&options.dest)
    };
    let volume = Volume::open(&options.dest, || {
        meter.say("waiting for another fetch of this volume")
    })
    .await?;
    meter.say("");
    if whole() {
        meter.resume(artifact.bytes());
        artifact.shards.iter().for_each(|_| meter.shard_done());
        return Ok(manifest);
    }
    let missing = survey(&volume, artifact, options, meter).await?;
    volume.check_space(missing.iter().map(|(shard, _)| shard))?;
    let mut parts = Vec::new();
    for (shard, mut ledger) in missing {
        let file = volume.open_part(&shard, &mut ledger)?;
        meter.resume(ledger.bytes_done());
        parts.push(Arc::new(Part::new(
            shard.clone(),
            volume.part(&shard),
            file,
            ledger,
        )));
    }
    meter.enter(State::Downloading);
    let transfer = Transfer::new(
        hub.clone(),
        &artifact.repo,
        &artifact.commit,
        options.clone(),
        meter.clone(),
    );
    let connections = options.connections.clamp(1, MAX_CONNECTIONS);
    Crew::new(transfer, volume, meter.clone(), connections)
        .work(parts)
        .await?;
    manifest.write(&options.dest)?;
    Ok(manifest)
}

/// The shards that are not finished, with their ledgers. A file under its final name that this program did not verify
/// (a volume filled by hand) is hashed rather than fetched again.
async fn survey(
    volume: &Volume,
    artifact: &Artifact,
    options: &Options,
    meter: &Meter,
) -> Result<Vec<(Shard, Ledger)>, Error> {
    let mut missing = Vec::new();
    for shard in &artifact.shards {
        let mut ledger = volume.ledger(shard, options.connections)?;
        let place = volume.place(shard);
        let there =
            std::fs::metadata(&place).is_ok_and(|meta| meta.is_file() && meta.len() == shard.size);
        let mut verified = there && !options.verify && ledger.is_verified(&place);
        if there && !verified {
            meter.enter(State::Verifying);
            meter.say(format!("checking {}, which was there", shard.path));
            verified = hash(&place).await? == shard.sha256;
            if verified {
                ledger
                    .record_verified(&place)
                    .map_err(Error::io("recording", &place))?;
            }
            meter.say("");
        }
        if verified {
            meter.resume(shard.size);
            meter.shard_done();
        } else {
            missing.push((shard.clone(), ledger));
        }
    }
    Ok(missing)
}

/// The connections and what they work on. Dropping it ends them.
struct Crew {
    transfer: Arc<Transfer>,
    volume: Arc<Volume>,
    meter: Arc<Meter>,
    connections: usize,
}

type Piece = (usize, Arc<Part>, u32);

enum Event {
    /// A piece of part `0` is recorded.
    Piece(usize),
    /// Part `0` has this SHA-256.
    Hashed(usize, String),
    Failed(Error),
}

impl Crew {
    fn new(transfer: Transfer, volume: Volume, meter: Arc<Meter>, connections: usize) -> Self {
        Self {
            transfer: Arc::new(transfer),
            volume: Arc::new(volume),
            meter,
            connections,
        }
    }

    async fn work(self, parts: Vec<Arc<Part>>) -> Result<(), Error> {
        let (to_do, queue) = mpsc::unbounded_channel::<Piece>();
        let (events, mut happened) = mpsc::channel(2 * self.connections + parts.len());
        let mut tasks = JoinSet::new();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..self.connections {
            tasks.spawn(connection(
                self.transfer.clone(),
                queue.clone(),
                events.clone(),
            ));
        }
        // One hash at a time: it reads from the disk that the connections write to.
        let hashing = Arc::new(Semaphore::new(1));
        let mut left = vec![0; parts.len()];
        let mut second_try = vec![false; parts.len()];
        let mut unfinished = parts.len();
        let give_out = |index: usize, left: &mut Vec<usize>| {
            let missing = parts[index].with_ledger(|ledger| ledger.missing());
            left[index] = missing.len();
            for piece in &missing {
                // The receiver lives as long as this function.
                let _ = to_do.send((index, parts[index].clone(), *piece));
            }
            missing.is_empty()
        };
        for (index, part) in parts.iter().enumerate() {
            if give_out(index, &mut left) {
                tasks.spawn(hash_part(
                    index,
                    part.clone(),
                    hashing.clone(),
                    events.clone(),
                ));
            }
        }
        while unfinished > 0 {
            if left.iter().all(|left| *left == 0) {
                self.meter.enter(State::Verifying);
            }
            let Some(event) = happened.recv().await else {
                break;
            };
            match event {
                Event::Failed(error) => return Err(error),
                Event::Piece(index) => {
                    self.meter.say("");
                    left[index] -= 1;
                    if left[index] == 0 {
                        tasks.spawn(hash_part(
                            index,
                            parts[index].clone(),
                            hashing.clone(),
                            events.clone(),
                        ));
                    }
                }
                Event::Hashed(index, found) if found == parts[index].shard.sha256 => {
                    self.finish(&parts[index])?;
                    unfinished -= 1;
                }
                Event::Hashed(index, found) => {
                    self.discard(&parts[index], found, &mut second_try[index])?;
                    self.meter.enter(State::Downloading);
                    give_out(index, &mut left);
                }
            }
        }
        Ok(())
    }

    /// The checksum is right: final name, ledger, counters.
    fn finish(&self, part: &Part) -> Result<(), Error> {
        let place = self.volume.finish(&part.shard)?;
        let recorded = part.with_ledger(|ledger| ledger.record_verified(&place));
        recorded.map_err(Error::io("recording", &place))?;
        self.meter.shard_done();
        Ok(())
    }

    /// The checksum is wrong: all of the shard comes again, once.
    fn discard(&self, part: &Part, found: String, second_try: &mut bool) -> Result<(), Error> {
        let Shard { path, size, sha256 } = &part.shard;
        part.with_ledger(Ledger::clear)?;
        if std::mem::replace(second_try, true) {
            return Err(Error::ChecksumMismatch {
                path: path.clone(),
                expected: sha256.clone(),
                found,
            });
        }
        tracing::warn!(
            path,
            found,
            expected = sha256,
            "wrong checksum, fetching the shard again"
        );
        self.meter.take_back(*size);
        self.meter
            .say(format!("{path} had a wrong checksum and comes again"));
        Ok(())
    }
}

async fn connection(
    transfer: Arc<Transfer>,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Piece>>>,
    events: mpsc::Sender<Event>,
) {
    loop {
        let next = queue.lock().await.recv().await;
        let Some((index, part, piece)) = next else {
            return;
        };
        let event = match transfer.piece(&part, piece).await {
            Ok(()) => Event::Piece(index),
            Err(error) => Event::Failed(error),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn hash_part(
    index: usize,
    part: Arc<Part>,
    hashing: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
) {
    // The semaphore is never closed; without a permit two hashes would merely overlap.
    let _permit = hashing.acquire().await;
    let event = match hash(&part.path).await {
        Ok(found) => Event::Hashed(index, found),
        Err(error) => Event::Failed(error),
    };
    // When nobody listens any more, the fetch has already failed.
    let _ = events.send(event).await;
}
