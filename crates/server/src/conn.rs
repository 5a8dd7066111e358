//! The accept loop and the drain. Each connection is tracked by itself, because a drain must know
//! which are idle; generic servers only know how to close them, which resets clients that are just
//! sending. It must not know routes.
//!
//! Drain: connections are still accepted and every response says `Connection: close`, so that each
//! keep-alive client leaves after its next answer, whichever it is. The process may end once no
//! connection is open, or those left have sent nothing for [`IDLE_END`]. Streams always finish.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    app::{App, Phase},
    tracked::{Activity, CountedBody, InFlight, WatchedIo},
};

/// Connections at a time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// A connection that has sent nothing for this long does not hold up the end of a drain.
const IDLE_END: Duration = Duration::from_secs(10);
/// A request's head must be whole this long after its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// An idle connection is closed after this time. Longer than the pools of common proxies keep
/// theirs (up to 600 s), so that they close first and never send into a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(650);
/// After the last response, what the client still sends is read and thrown away this long: closing
/// with unread bytes would reset the connection and could destroy the response on its way.
const LINGER: Duration = Duration::from_secs(5);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections cut while a response was still under way; 0 unless the drain timed out.
    pub cut: usize,
}

/// The connections now open.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
}

impl Connections {
    fn add(&self, activity: Arc<Activity>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, activity);
        id
    }

    fn remove(&self, id: u64) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    fn len(&self) -> usize {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Connections that a client may still be using.
    fn active(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .filter(|activity| activity.idle_for().is_none_or(|idle| idle < IDLE_END))
            .count()
    }

    /// Connections with a request or response under way.
    fn busy(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .filter(|activity| activity.idle_for().is_none())
            .count()
    }
}

/// Serves `router` on `listener` until [`App::drain`] was called and the drain is over, at most
/// `drain_timeout` later.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    drain_timeout: Duration,
) -> Drained {
    let connections = Arc::new(Connections::default());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let end = CancellationToken::new();
    let drained = drained(&app, &connections, drain_timeout);
    tokio::pin!(drained);
    let outcome = loop {
        // The backlog comes first, so that nothing in it is lost when the drain is over.
        let place = tokio::select! {
            biased;
            place = Arc::clone(&places).acquire_owned() => place,
            outcome = &mut drained => break outcome,
        };
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            outcome = &mut drained => break outcome,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that left already: neither ends the server.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let activity = Arc::new(Activity::new());
        let id = connections.add(Arc::clone(&activity));
        let task = connection(
            stream,
            router.clone(),
            Arc::clone(&app),
            activity,
            end.clone(),
        );
        let connections = Arc::clone(&connections);
        tokio::spawn(async move {
            task.await;
            connections.remove(id);
            drop(place);
        });
    };
    drop(listener);
    end.cancel();
    // Idle connections now get an orderly close; a moment is enough, and nobody waits for them.
    let closing = async {
        while connections.len() > connections.busy() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    _ = timeout(Duration::from_millis(500), closing).await;
    outcome
}

/// Resolves when a drain has begun and nothing needs this process any more.
async fn drained(app: &App, connections: &Connections, drain_timeout: Duration) -> Drained {
    let mut phase = app.watch_phase();
    // The sender lives in `app`, so waiting cannot fail.
    _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    let deadline = Instant::now() + drain_timeout;
    tracing::info!(connections = connections.len(), "draining");
    loop {
        if connections.active() == 0 {
            return Drained { cut: 0 };
        }
        if Instant::now() >= deadline {
            let cut = connections.busy();
            tracing::warn!(cut, "the drain timed out");
            return Drained { cut };
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One connection from its first byte to its orderly end.
async fn connection(
    stream: TcpStream,
    router: Router,
    app: Arc<App>,
    activity: Arc<Activity>,
    end: CancellationToken,
) {
    // Tokens are small packets that should not wait for each other.
    _ = stream.set_nodelay(true);
    let io = TokioIo::new(WatchedIo::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request| respond(request, router.clone(), &app, &activity));
    let mut conn = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper's own timeout also runs while a connection is idle; `Activity` tells the two apart.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing = false;
    let served = loop {
        tokio::select! {
            served = poll_fn(|cx| conn.poll_without_shutdown(cx)) => break served,
            _ = tick.tick() => {
                if activity.head_under_way().is_some_and(|time| time >= HEAD_TIMEOUT) {
                    return;
                }
                if activity.idle_for().is_some_and(|idle| idle >= IDLE_TIMEOUT) && !closing {
                    closing = true;
                    Pin::new(&mut conn).graceful_shutdown();
                }
            }
            () = end.cancelled(), if !closing => {
                closing = true;
                Pin::new(&mut conn).graceful_shutdown();
            }
        }
    };
    match served {
        Ok(()) => {
            linger(
                conn.into_parts().io.into_inner().into_inner(),
                activity.begin(),
            )
            .await
        }
        Err(error) => tracing::debug!(%error, "connection ended"),
    }
}

/// Ends our side, then waits for the client to end its own.
async fn linger(mut stream: TcpStream, _busy: InFlight) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut sink = vec![0; 16 << 10];
    let rest = async { while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {} };
    _ = timeout(LINGER, rest).await;
}

type Responding<'a> =
    Pin<Box<dyn Future<Output = Result<Response<CountedBody>, Infallible>> + Send + 'a>>;

fn respond<'a>(
    request: Request<Incoming>,
    router: Router,
    app: &'a App,
    activity: &Arc<Activity>,
) -> Responding<'a> {
    let in_flight = activity.begin();
    Box::pin(async move {
        let answered = router.oneshot(request.map(Body::new)).await;
        let mut response = match answered {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if app.phase() == Phase::Draining {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| CountedBody::new(body, in_flight)))
    })
}
