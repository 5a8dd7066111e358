//! What several integration tests share. It must know no single test.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub(crate) mod schema;
