//! The HTTP surface over a fake engine: routes in process, connections and the drain over sockets.
//! No weights, no real engine: the tests hold the other end of its channel.
#![allow(clippy::unwrap_used, clippy::panic)]

mod choices;
mod connections;
mod errors;
mod fake;
mod routes;
mod tokens;
mod tools;
