//! Gets one artifact (a quant of a model at a commit) from a Hugging Face hub onto a volume: hub metadata, and a
//! parallel ranged transfer that resumes in another process, verifies every shard and then, at once, declares the whole
//! complete. It must not know Kubernetes, GGUF or what the files are for.
//!
//! The way through: [`Hub`] asks the hub for a commit, a listing and addresses; [`resolve`] picks the shards of a
//! quant; [`Artifact::find`] joins both; [`headers::read`] reads the start of a remote file; [`fetch()`] transfers.
//!
//! What survives a crash: a piece is recorded in its shard's [`ledger`] only after its bytes are on the disk
//! (fdatasync), a shard gets its final name only after its SHA-256 matched, and the manifest appears, by rename, only
//! after all shards have. So a file under its final name is whole, and a manifest means that everything is.
//!
//! The token goes to the hub's own origin and nowhere else.
#![deny(unsafe_code)]

mod address;
mod artifact;
mod backoff;
pub mod check;
mod download;
mod error;
pub mod headers;
mod http;
mod hub;
pub mod ledger;
pub mod manifest;
mod names;
mod progress;
pub mod resolve;
mod sys;
mod transfer;
mod verify;
mod volume;

pub use artifact::{Artifact, Shard, Source};
pub use download::{Options, fetch};
pub use error::Error;
pub use hub::{DEFAULT_ENDPOINT, Hub, Listed, Token};
pub use manifest::Manifest;
pub use progress::{Progress, State};
