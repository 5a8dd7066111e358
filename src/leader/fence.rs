//! The right to write, bounded by a monotonic clock, and the client that enforces it: a leader that was frozen past the
//! end of its Lease finds on waking that it may write nothing, whatever it had decided before. It must not know the
//! Lease or the API server.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, Service};

/// A write by an operator that does not hold its Lease.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this operator does not hold its Lease (any more): it writes nothing")]
pub struct Fenced;

/// Until when this process may write. Clones share the same end.
#[derive(Clone, Debug, Default)]
pub struct Tenure {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Tenure {
    /// True while this process may write.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn extend(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    pub(super) fn end(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client of `builder`, whose every write is refused outside the tenure and given up at its end.
pub fn fenced<S, B>(builder: ClientBuilder<S>, tenure: Tenure) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    B: hyper::body::Body<Data = hyper::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let layer = tower::layer::layer_fn(move |inner| Fence {
        inner,
        tenure: tenure.clone(),
    });
    builder.with_layer(&layer).build()
}

struct Fence<S> {
    inner: S,
    tenure: Tenure,
}

impl<S, R> Service<Request<Body>> for Fence<S>
where
    R: 'static,
    S: Service<Request<Body>, Response = R>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<R, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        let work = self.inner.call(request).map_err(Into::into);
        if reads {
            return work.boxed();
        }
        within(self.tenure.clone(), work).boxed()
    }
}

/// Drives a write while the tenure holds. The clock is read before every step, the first included: a future sends
/// nothing before it is polled, and a process that slept may wake between any two.
async fn within<T>(
    tenure: Tenure,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let mut work = pin!(work);
    loop {
        let Some(until) = tenure.until() else {
            return Err(Fenced.into());
        };
        let mut end = pin!(sleep_until(until));
        let step = poll_fn(|context| {
            if !tenure.holds() {
                return Poll::Ready(Some(Err(Fenced.into())));
            }
            if let Poll::Ready(answer) = work.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            // The end as it was; a renewal meanwhile has moved it, and the loop looks again.
            end.as_mut().poll(context).map(|()| None)
        });
        if let Some(answer) = step.await {
            return answer;
        }
    }
}
