//! The operator: knows Kubernetes, never links the engine, the HTTP server or CUDA.
#![forbid(unsafe_code)]

pub mod check;
pub mod controller;
pub mod crd;
pub mod leader;
pub mod manifests;
pub mod names;
pub mod orphans;
pub mod rbac;
pub mod report;
pub mod snapshot;
pub mod telemetry;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod testing;
