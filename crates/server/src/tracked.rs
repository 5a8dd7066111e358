//! Tells an idle connection from a busy one: counts requests under way, and watches the socket for
//! bytes that belong to none yet. It must not know HTTP beyond "a head comes before its request".

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// What one connection is doing.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Requests whose response is not fully written.
    in_flight: usize,
    /// Since when bytes have been arriving that are no request yet.
    head_since: Option<Instant>,
    /// Response bytes wait for the client to read.
    write_blocked: bool,
    idle_since: Instant,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            in_flight: 0,
            head_since: None,
            write_blocked: false,
            idle_since: Instant::now(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long the client has had nothing under way; `None` while it has.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let state = self.state();
        let busy = state.in_flight > 0 || state.head_since.is_some() || state.write_blocked;
        (!busy).then(|| state.idle_since.elapsed())
    }

    /// For how long a request's head has been arriving.
    pub(crate) fn head_under_way(&self) -> Option<Duration> {
        self.state().head_since.map(|since| since.elapsed())
    }

    /// A request has begun; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state();
        state.in_flight += 1;
        state.head_since = None;
        InFlight(Arc::clone(self))
    }

    fn received(&self) {
        let mut state = self.state();
        if state.in_flight == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn wrote(&self, blocked: bool) {
        let mut state = self.state();
        if state.write_blocked && !blocked {
            state.idle_since = Instant::now();
        }
        state.write_blocked = blocked;
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.idle_since = Instant::now();
    }
}

/// A response body that keeps its request under way until it is written or dropped.
#[derive(Debug)]
pub(crate) struct CountedBody {
    body: Body,
    _in_flight: InFlight,
}

impl CountedBody {
    pub(crate) fn new(body: Body, in_flight: InFlight) -> Self {
        Self {
            body,
            _in_flight: in_flight,
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that reports its reads and blocked writes.
#[derive(Debug)]
pub(crate) struct WatchedIo {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl WatchedIo {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn report(&self, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.wrote(write.is_pending());
        write
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.report(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.report(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
