//! The operator, in the test's own process, against a real API server, under the shipped permissions only. It runs
//! where `KIMI_TEST_CLUSTER` is set and `KUBECONFIG` names a cluster that may be written to; elsewhere each test says
//! that it was skipped. Modules that script what pods do need a control plane without a node (`KIMI_CLUSTER`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod crash;
mod kubelet;
mod lab;
mod life;
mod plan;
mod scale;
mod spine;
mod state;
mod wire;
