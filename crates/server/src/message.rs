//! The assistant's message as OpenAI clients read it, whole and in deltas: text, thoughts, calls of
//! tools. It must not know how a model marks them.

use engine::{Part, Turn};
use serde::Serialize;

/// A whole message.
#[derive(Debug, Serialize)]
pub(crate) struct WireMessage {
    role: &'static str,
    /// `null` for a message that only calls tools.
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall>,
}

/// What one chunk of a stream adds to the message.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall>,
}

#[derive(Debug, Serialize)]
struct WireCall {
    /// Which call of the message a delta is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: WireFunction,
}

#[derive(Debug, Serialize)]
struct WireFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl From<Turn> for WireMessage {
    fn from(turn: Turn) -> Self {
        let only_calls = turn.content.is_empty() && !turn.calls.is_empty();
        let calls = turn.calls.into_iter().map(|call| WireCall {
            index: None,
            id: Some(call.id),
            kind: Some("function"),
            function: WireFunction {
                name: Some(call.name),
                arguments: call.arguments,
            },
        });
        Self {
            role: "assistant",
            content: (!only_calls).then_some(turn.content),
            reasoning_content: (!turn.reasoning.is_empty()).then_some(turn.reasoning),
            tool_calls: calls.collect(),
        }
    }
}

impl Delta {
    /// Says who speaks.
    pub(crate) fn opening() -> Self {
        Self {
            role: Some("assistant"),
            content: Some(String::new()),
            ..Self::default()
        }
    }

    /// A part of the message, in which `calls` calls have begun by now.
    pub(crate) fn new(said: Part, calls: usize) -> Self {
        let call = |id: Option<String>, name: Option<String>, arguments: String| WireCall {
            index: Some(calls.saturating_sub(1)),
            kind: id.is_some().then_some("function"),
            id,
            function: WireFunction { name, arguments },
        };
        let mut delta = Self::default();
        match said {
            Part::Content(text) => delta.content = Some(text),
            Part::Reasoning(text) => delta.reasoning_content = Some(text),
            Part::Call { id, name } => {
                delta.tool_calls = vec![call(Some(id), Some(name), String::new())];
            }
            Part::Arguments(text) => delta.tool_calls = vec![call(None, None, text)],
        }
        delta
    }
}
