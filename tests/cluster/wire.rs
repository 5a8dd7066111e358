//! The wire between an operator and the API server, as a layer of the operator's client: it names and counts every
//! write, and at one of them does what networks, API servers and kernels do. Reads can be made to lag or to miss
//! events. It must know nothing of what the operator wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use hyper::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// How long a delayed write waits, and how long a lagging view is all that an operator sees.
pub(crate) const LAG: Duration = Duration::from_secs(2);

/// One write of a life, by what it is rather than when: the same one in every run of that life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) phase: &'static str,
    /// Method, kind, name and subresource.
    pub(crate) what: String,
    /// Which of the writes of this phase with these words, from 1.
    pub(crate) nth: u32,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} #{}", self.phase, self.what, self.nth)
    }
}

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operator dies before the write leaves it.
    KillBefore,
    /// The write is done, and the operator dies before it hears so.
    KillAfter,
    /// The API server answers with this status and does nothing.
    Refuse(u16),
    /// The connection breaks before the write arrives.
    Drop,
    /// The write is done, and the connection breaks before the answer arrives.
    LoseAnswer,
    /// The write arrives late.
    Delay,
}

/// What an operator that starts is shown first: each list of these kinds as it was at a resource version, and no event
/// after it for a while. An API server that lags behind its peers does this.
#[derive(Clone, Debug)]
pub(crate) struct Stale {
    pub(crate) version: String,
    pub(crate) kind: Option<&'static str>,
}

#[derive(Debug, Default)]
struct State {
    phase: &'static str,
    seen: BTreeMap<(&'static str, String), u32>,
    writes: Vec<Write>,
    fault: Option<(Write, Fault)>,
    fired: bool,
    dead: bool,
    stale: Option<Stale>,
    /// Kinds whose stale list was given out, and whose watch then waited.
    listed: BTreeSet<String>,
    watched: BTreeSet<String>,
    in_flight: usize,
    last: Option<Instant>,
}

/// One operator's wire; it outlives the operator's deaths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    state: Arc<Mutex<State>>,
    /// The kind whose watches deliver nothing now.
    frozen: Arc<watch::Sender<Option<&'static str>>>,
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Names the part of the life that is next.
    pub(crate) fn enter(&self, phase: &'static str) {
        self.state().phase = phase;
    }

    /// Does `fault` at `write`, once.
    pub(crate) fn arm(&self, write: Write, fault: Fault) {
        self.state().fault = Some((write, fault));
    }

    /// True if the armed fault has happened.
    pub(crate) fn fired(&self) -> bool {
        self.state().fired
    }

    /// Every write so far, those that a fault swallowed too.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.state().writes.clone()
    }

    /// True if the operator was killed: nothing it sends goes anywhere any more.
    pub(crate) fn dead(&self) -> bool {
        self.state().dead
    }

    /// The operator is killed at no write in particular.
    pub(crate) fn kill(&self) {
        self.state().dead = true;
    }

    /// A new operator is about to start, and sees this first.
    pub(crate) fn revive(&self, stale: Option<Stale>) {
        let mut state = self.state();
        (state.dead, state.stale, state.in_flight) = (false, stale, 0);
        (state.listed, state.watched) = Default::default();
    }

    /// Watches of this kind deliver nothing from now on.
    pub(crate) fn freeze(&self, kind: &'static str) {
        self.frozen.send_replace(Some(kind));
    }

    /// Frozen watches end as those do whose events the API server no longer has; what they would have told is lost.
    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(None);
    }

    /// True if nothing was asked or answered for `pause`, watches aside.
    pub(crate) fn quiet_for(&self, pause: Duration) -> bool {
        let state = self.state();
        state.in_flight == 0 && state.last.is_none_or(|last| last.elapsed() >= pause)
    }

    /// Notes a write; the fault that is meant for it.
    fn note(&self, what: String) -> Option<Fault> {
        let mut state = self.state();
        let phase = state.phase;
        let nth = state.seen.entry((phase, what.clone())).or_default();
        *nth += 1;
        let write = Write {
            phase,
            what,
            nth: *nth,
        };
        state.writes.push(write.clone());
        let fault = state
            .fault
            .as_ref()
            .filter(|(armed, _)| *armed == write && !state.fired)?
            .1;
        state.fired = true;
        if matches!(fault, Fault::KillBefore) {
            state.dead = true;
        }
        Some(fault)
    }

    /// The version at which a list of this kind is to be answered, until its watch begins.
    fn stale_list(&self, kind: &str) -> Option<String> {
        let mut state = self.state();
        let stale = state.stale.clone()?;
        if stale.kind.is_some_and(|only| only != kind) || state.watched.contains(kind) {
            return None;
        }
        state.listed.insert(kind.to_owned());
        Some(stale.version)
    }

    /// True for the first watch after a stale list: it has nothing to tell for a while.
    fn holds_back(&self, kind: &str) -> bool {
        let mut state = self.state();
        state.listed.contains(kind) && state.watched.insert(kind.into())
    }

    fn begin(&self) -> Busy {
        self.state().in_flight += 1;
        Busy(self.clone())
    }
}

/// A request that is under way.
struct Busy(Wire);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // Those of a killed operator were forgotten when the next one started.
        state.in_flight = state.in_flight.saturating_sub(1);
        state.last = Some(Instant::now());
    }
}

impl<S> Layer<S> for Wire {
    type Service = Wired<S>;

    fn layer(&self, inner: S) -> Wired<S> {
        let wire = self.clone();
        Wired { inner, wire }
    }
}

/// The operator's HTTP client with the wire in it.
pub(crate) struct Wired<S> {
    inner: S,
    wire: Wire,
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl<S, B> Service<Request<Body>> for Wired<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let wire = self.wire.clone();
        if wire.dead() {
            return std::future::pending().boxed();
        }
        let target = Target::of(request.uri());
        if request.method() == Method::GET && target.watch {
            let answer = self.inner.call(request);
            return watched(wire, target.kind, answer).boxed();
        }
        let busy = wire.begin();
        let mut fault = None;
        if request.method() == Method::GET {
            if target.name.is_none()
                && let Some(version) = wire.stale_list(&target.kind)
            {
                *request.uri_mut() = at_version(request.uri(), &version);
            }
        } else {
            fault = wire.note(format!("{} {target}", request.method()));
        }
        if fault == Some(Fault::KillBefore) {
            return std::future::pending().boxed();
        }
        if let Some(Fault::Refuse(code)) = fault {
            return std::future::ready(Ok(refusal(code))).boxed();
        }
        if fault == Some(Fault::Drop) {
            return std::future::ready(Err("the connection broke".into())).boxed();
        }
        let answer = self.inner.call(request);
        async move {
            if fault == Some(Fault::Delay) {
                tokio::time::sleep(LAG).await;
            }
            let answer = answer.await;
            // Before a death, which leaves this future unfinished until the operator's runtime is gone.
            drop(busy);
            let answer = answer.map_err(Into::into)?;
            match fault {
                Some(Fault::KillAfter) => {
                    wire.kill();
                    std::future::pending().await
                }
                Some(Fault::LoseAnswer) => Err("the connection broke".into()),
                _ => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
            }
        }
        .boxed()
    }
}

/// A watch whose events stop while its kind is frozen and whose end then says that they are gone.
async fn watched<B, E>(
    wire: Wire,
    kind: String,
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Answer, BoxError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    if wire.holds_back(&kind) {
        tokio::time::sleep(LAG).await;
    }
    let response = answer.await.map_err(Into::into)?;
    let (mut freezing, mut thawing) = (wire.frozen.subscribe(), wire.frozen.subscribe());
    let froze = Arc::new(AtomicBool::new(false));
    let (mark, marked) = (Arc::clone(&froze), froze);
    let this = kind.clone();
    let until_frozen = async move {
        let frozen = freezing.wait_for(|now| now.is_some_and(|now| now == this));
        if frozen.await.is_err() {
            std::future::pending::<()>().await;
        }
        mark.store(true, Ordering::Relaxed);
    };
    let gone = async move {
        if !marked.load(Ordering::Relaxed) {
            return None;
        }
        // An error means that the test is over.
        let _ = thawing.wait_for(Option::is_none).await;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410});
        let event = format!("{}\n", json!({"type": "ERROR", "object": status}));
        Some(Ok(Frame::data(Bytes::from(event))))
    };
    Ok(response.map(|body| {
        let events = TryStreamExt::map_err(BodyStream::new(body), Into::into)
            .take_until(Box::pin(until_frozen))
            .chain(stream::once(gone).filter_map(std::future::ready));
        StreamBody::new(events).boxed_unsync()
    }))
}

/// What a request is about.
struct Target {
    kind: String,
    name: Option<String>,
    subresource: Option<String>,
    watch: bool,
}

impl Target {
    fn of(uri: &Uri) -> Self {
        let mut segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        // `/api/v1/...` or `/apis/GROUP/VERSION/...`, then the namespace, if there is one.
        segments.drain(
            ..if segments.first() == Some(&"api") {
                2
            } else {
                3
            }
            .min(segments.len()),
        );
        if segments.first() == Some(&"namespaces") && segments.len() > 2 {
            segments.drain(..2);
        }
        let word = |index: usize| segments.get(index).map(|word| (*word).to_owned());
        Self {
            kind: word(0).unwrap_or_default(),
            name: word(1),
            subresource: word(2),
            watch: uri
                .query()
                .is_some_and(|query| query.contains("watch=true")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        for word in [&self.name, &self.subresource].into_iter().flatten() {
            write!(f, "/{word}")?;
        }
        Ok(())
    }
}

/// The same list as it was.
fn at_version(uri: &Uri, version: &str) -> Uri {
    let query = uri.query().unwrap_or_default();
    let kept = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("resourceVersion"));
    let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
    let query: Vec<&str> = kept.chain([exact.as_str()]).collect();
    let text = format!("{}?{}", uri.path(), query.join("&"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.parse().unwrap());
    Uri::from_parts(parts).unwrap()
}

fn refusal(code: u16) -> Answer {
    let reason = match code {
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test", "reason": reason, "code": code});
    let body = Full::from(status.to_string()).map_err(Into::into);
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
