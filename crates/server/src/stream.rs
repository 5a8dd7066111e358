//! A generation as server-sent events, in OpenAI's framing. It must not know the JSON inside them.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures::{StreamExt, stream};
use serde::Serialize;

use crate::{
    generate::{Generation, Output},
    reply::Reply,
};

/// A comment goes out when nothing else did for this long: a prompt may be read for minutes, and
/// proxies cut silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams the generation. The status is 200 at once, so a later failure comes as an error event,
/// after which the stream ends without `[DONE]`.
pub(crate) fn respond(reply: Reply, generation: Generation, include_usage: bool) -> Response {
    let opening = reply.opening().map(|chunk| event(&chunk));
    let rest = stream::unfold(generation, |mut generation| async move {
        let output = generation.next().await?;
        Some((output, generation))
    })
    .flat_map(move |output| stream::iter(events(&reply, output, include_usage)));
    let all = stream::iter(opening)
        .chain(rest)
        .map(Ok::<Event, Infallible>);
    let mut response = Sse::new(all)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // nginx and its ingress buffer responses unless told not to.
    response.headers_mut().insert(
        "x-accel-buffering",
        axum::http::HeaderValue::from_static("no"),
    );
    response
}

fn events(reply: &Reply, output: Output, include_usage: bool) -> Vec<Event> {
    match output {
        Output::Text(text) => vec![event(&reply.text(text))],
        Output::Failed(error) => vec![event(&error.body())],
        Output::Done(finish) => {
            let mut events = vec![event(&reply.finish(&finish))];
            if include_usage {
                events.push(event(&reply.usage(&finish)));
            }
            events.push(Event::default().data("[DONE]"));
            events
        }
    }
}

fn event(json: &impl Serialize) -> Event {
    // Our types have string keys and finite numbers only; a failure would be a bug worth a line.
    Event::default().json_data(json).unwrap_or_else(|error| {
        tracing::error!(%error, "a chunk did not serialize");
        Event::default().comment("lost")
    })
}
