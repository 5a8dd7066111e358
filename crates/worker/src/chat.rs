//! The parts of `kimi chat`: where answers come from, what the user types, what is shown and kept.

pub(crate) mod backend;
pub(crate) mod command;
pub(crate) mod input;
pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod screen;
pub(crate) mod session;
mod wire;
