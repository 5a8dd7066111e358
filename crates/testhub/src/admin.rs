//! The tests' side door: faults and counters while the stand-in runs. Knows nothing of the hub's protocol.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use crate::faults::Faults;
use crate::state::{Shared, Stats};

/// `GET /admin/faults`: faults in force, with what is left of their counts.
pub(crate) async fn faults(State(hub): State<Arc<Shared>>) -> Json<Faults> {
    Json(hub.faults())
}

/// `PUT /admin/faults`: replaces them; `{}` is none.
pub(crate) async fn set_faults(State(hub): State<Arc<Shared>>, Json(faults): Json<Faults>) {
    hub.set_faults(faults);
}

/// `GET /admin/stats`.
pub(crate) async fn stats(State(hub): State<Arc<Shared>>) -> Json<Stats> {
    Json(hub.stats())
}

/// `POST /admin/reset`: counters to zero, faults off.
pub(crate) async fn reset(State(hub): State<Arc<Shared>>) {
    hub.reset();
}
