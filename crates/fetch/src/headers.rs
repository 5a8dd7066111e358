//! Reads the start of a remote file, growing until a parser is content. It must not know what is parsed: the caller's
//! closure says how much more it needs.

use crate::artifact::{Artifact, Shard};
use crate::backoff::{Trouble, persist};
use crate::error::Error;
use crate::http::{RangeTrouble, open_range, unreachable};
use crate::hub::{Hub, Listed};

/// First read: enough for a shard without a tokenizer.
const FIRST: u64 = 256 << 10;
/// A header with the largest tokenizers has 10 MB; this much is not a header.
pub const MAX_BYTES: u64 = 128 << 20;

/// What a parser made of the bytes so far.
#[derive(Debug)]
pub enum Step<T> {
    Done(T),
    /// At least this many bytes from the start of the file are needed.
    Need(u64),
}

/// Reads `shard` from its start and hands all bytes so far to `parse` until it is done. Reads grow at least twofold, so
/// a header of 10 MB takes six requests.
///
/// # Errors
/// Transfer errors as [`Error`]; the parser's own, `E`, as it gave them. A parser that wants more than the file or
/// [`MAX_BYTES`] gets [`Error::BadAnswer`].
pub async fn read<T, E: From<Error>>(
    hub: &Hub,
    artifact: &Artifact,
    shard: &Shard,
    mut parse: impl FnMut(&[u8]) -> Result<Step<T>, E>,
) -> Result<T, E> {
    let listed = Listed::from(shard);
    let (mut bytes, mut need) = (Vec::new(), FIRST);
    loop {
        let end = need
            .max(bytes.len() as u64 * 2)
            .min(shard.size)
            .min(MAX_BYTES);
        let start = bytes.len() as u64;
        let more = persist(hub.patience, || async {
            // The address is asked for again with each read: reads are few, and it never expires in between.
            let address = hub
                .address(&artifact.repo, &artifact.commit, &listed)
                .await?;
            let opened = open_range(
                &hub.content,
                &address,
                (start, end, shard.size),
                &shard.path,
            )
            .await;
            let mut response = opened.map_err(|trouble| match trouble {
                RangeTrouble::Other(trouble) => trouble,
                RangeTrouble::Size(error) => Trouble::Fatal(error),
                RangeTrouble::Address(error) => Trouble::Retry { error, after: None },
            })?;
            let mut more = Vec::new();
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|error| unreachable(&address.url, &error))?
            {
                let room = (end - start) as usize - more.len();
                more.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            if (more.len() as u64) < end - start {
                let error = Error::HubUnreachable {
                    url: shard.path.clone(),
                    detail: "the body ended early".into(),
                };
                return Err(Trouble::Retry { error, after: None });
            }
            Ok(more)
        })
        .await?;
        bytes.extend_from_slice(&more);
        match parse(&bytes)? {
            Step::Done(value) => return Ok(value),
            Step::Need(more) if bytes.len() as u64 >= shard.size.min(MAX_BYTES) => {
                let detail = format!("its header needs {more} bytes of {}", shard.size);
                return Err(Error::BadAnswer {
                    what: shard.path.clone(),
                    detail,
                }
                .into());
            }
            Step::Need(more) => need = more,
        }
    }
}
