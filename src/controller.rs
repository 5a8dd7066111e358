//! The reconcile loop: observe → validate → plan → build → apply → status.

pub mod assess;
pub mod build;
pub mod plan;
pub mod progress;
pub mod validate;

pub use build::Settings;
