//! The whole downloader against the hub stand-in: one binary, one module per question.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod access;
mod common;
mod faults;
mod kills;
mod processes;
mod rot;
