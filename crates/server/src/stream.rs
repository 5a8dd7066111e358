//! An answer on its way out: in one piece, or as server-sent events in OpenAI's framing. It must not
//! know the JSON inside.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures::{StreamExt, stream};
use serde::Serialize;

use crate::{
    choice::{Choice, Whole},
    error::ApiError,
    generate::{Finish, Generations, Output},
    reply::Reply,
};

/// A comment goes out when nothing else did for this long: a prompt may be read for minutes, and
/// proxies cut silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The answer in one piece: every choice, joined from its parts.
pub(crate) async fn collect(
    mut choices: Vec<Choice>,
    generations: Generations,
) -> Result<Vec<Whole>, ApiError> {
    let mut wholes: Vec<Whole> = choices
        .iter()
        .map(|choice| Whole {
            has_logprobs: choice.has_logprobs(),
            ..Whole::default()
        })
        .collect();
    let mut outputs = generations.outputs().boxed();
    while let Some((index, output)) = outputs.next().await {
        if let Output::Failed(error) = output {
            return Err(error);
        }
        let (Some(choice), Some(whole)) = (choices.get_mut(index), wholes.get_mut(index)) else {
            continue;
        };
        for part in choice.feed(output) {
            whole.add(part);
        }
    }
    Ok(wholes)
}

/// Streams the answer. The status is 200 at once, so a later failure comes as an error event, after
/// which the stream ends without `[DONE]`.
pub(crate) fn respond(reply: Reply, choices: Vec<Choice>, generations: Generations) -> Response {
    let opening: Vec<Event> = (0..choices.len())
        .filter_map(|index| reply.opening(index).map(|chunk| event(&chunk)))
        .collect();
    let under_way = UnderWay {
        finishes: vec![None; choices.len()],
        reply,
        choices,
        is_over: false,
    };
    let outputs = generations.outputs().boxed();
    let rest = stream::unfold((under_way, outputs), |(mut under_way, mut outputs)| async {
        if under_way.is_over {
            return None;
        }
        let (index, output) = outputs.next().await?;
        let events = under_way.events(index, output);
        Some((stream::iter(events), (under_way, outputs)))
    })
    .flatten();
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

/// A stream between two events.
struct UnderWay {
    reply: Reply,
    choices: Vec<Choice>,
    /// How each choice ended, once it has.
    finishes: Vec<Option<Finish>>,
    is_over: bool,
}

impl UnderWay {
    fn events(&mut self, index: usize, output: Output) -> Vec<Event> {
        if let Output::Failed(error) = output {
            self.is_over = true;
            return vec![event(&error.body())];
        }
        let mut events = Vec::new();
        let parts = self
            .choices
            .get_mut(index)
            .map(|choice| choice.feed(output));
        for part in parts.into_iter().flatten() {
            if let (Some(place), Some(finish)) = (self.finishes.get_mut(index), &part.finish) {
                *place = Some(finish.clone());
            }
            events.push(event(&self.reply.part(index, part)));
        }
        if self.finishes.iter().all(Option::is_some) {
            self.is_over = true;
            if self.reply.include_usage {
                let finishes: Vec<Finish> = self.finishes.drain(..).flatten().collect();
                events.push(event(&self.reply.usage(&finishes)));
            }
            events.push(Event::default().data("[DONE]"));
        }
        events
    }
}

fn event(json: &impl Serialize) -> Event {
    // Our types have string keys and finite numbers only; a failure would be a bug worth a line.
    Event::default().json_data(json).unwrap_or_else(|error| {
        tracing::error!(%error, "a chunk did not serialize");
        Event::default().comment("lost")
    })
}
