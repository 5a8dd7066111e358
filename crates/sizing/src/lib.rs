//! Pure sizing: how much disk, RAM, VRAM and time a Kimi model takes on given hardware. The operator, `kimi plan`
//! and the engine call the same functions, so prediction and allocation cannot drift. It must not know Kubernetes,
//! files, the network or the clock.
//!
//! Tables (facts, one file each): [`catalogue`] models, [`quants`] the guide's six, [`hardware`] GPUs and CPU.
//! Formulae: [`plan()`] applies them in order; [`weights`], [`kv_cache`], [`offload`], [`storage`] and [`time`] hold
//! one each. [`auto`] picks a quant; [`facts`] is what an inspection of a real repository found.
//!
//! Units: bytes and seconds as `u64`; GB is decimal (10^9), as in the guide and in Kubernetes' `G`.
#![forbid(unsafe_code)]

pub mod auto;
pub mod catalogue;
pub mod facts;
pub mod hardware;
pub mod inspect;
pub mod kv_cache;
pub mod offload;
pub mod plan;
pub mod quants;
mod report;
pub mod storage;
pub mod time;
mod verdict;
pub mod weights;

pub use auto::{Ask, Choice, NotInGuide, Objective, choose};
pub use catalogue::Model;
pub use facts::{Facts, Hyper, InspectReport};
pub use hardware::Hardware;
pub use inspect::{Identity, InspectError};
pub use kv_cache::CacheType;
pub use plan::{Basis, Cause, Fits, Input, Plan, Source, plan};
pub use quants::Quant;

/// Decimal gigabyte, the unit of the guide, of GPU data sheets and of Kubernetes' `G`.
pub const GB: u64 = 1_000_000_000;
/// Decimal megabyte.
pub const MB: u64 = 1_000_000;
