//! What a scenario on a real cluster needs: the cluster as a user sees it, the hub stand-in, and clients that never
//! retry. Knows the KimiModel only as the YAML and JSON a user writes and reads, never the operator's own types.
#![forbid(unsafe_code)]

pub mod clients;
pub mod cluster;
pub mod damage;
pub mod gpu;
pub mod hub;
pub mod scene;
