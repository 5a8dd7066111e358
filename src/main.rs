//! Entry point of kimi-operator: run, crd, manifests.
fn main() {}
