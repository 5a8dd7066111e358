//! The kimi command: plan, inspect, fetch, serve, run, perplexity.
fn main() {}
