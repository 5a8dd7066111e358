//! Scenarios on a real cluster.
