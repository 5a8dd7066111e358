//! A conversation as the engine sees it. It must not know the JSON of any HTTP API: the server
//! fills these in.

use std::{borrow::Cow, collections::HashMap};

/// One message. Strings are user text: nothing in them becomes a special token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text; `None` is legal for an assistant that only calls tools.
    pub content: Option<String>,
    /// Name of the speaker.
    pub name: Option<String>,
    /// What a thinking model thought before this message.
    pub reasoning_content: Option<String>,
    /// Calls an assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call a tool message answers.
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message that is only text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: Some(content.into()),
            ..Self::default()
        }
    }
}

/// One call of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Kimi's form is `functions.NAME:INDEX`, the index counting over the conversation.
    pub id: String,
    /// Function name.
    pub name: String,
    /// Arguments as JSON text.
    pub arguments: String,
}

/// The id of a call as Kimi writes it.
pub(crate) fn call_id(name: &str, index: u64) -> String {
    format!("functions.{name}:{index}")
}

/// The index in an id of Kimi's form; ones too large to count on from are not.
pub(crate) fn call_index(id: &str) -> Option<u64> {
    let (_, index) = id.strip_prefix("functions.")?.rsplit_once(':')?;
    index.parse::<u32>().ok().map(u64::from)
}

/// The conversation with every call's id in Kimi's form, as the model was trained to read them: ids of
/// other make, which clients bring along from other models, get the next index, here and in the
/// answers to them.
pub(crate) fn numbered(messages: &[ChatMessage]) -> Cow<'_, [ChatMessage]> {
    let calls = || messages.iter().flat_map(|message| &message.tool_calls);
    if calls().all(|call| call_index(&call.id).is_some()) {
        return Cow::Borrowed(messages);
    }
    let indices = calls().filter_map(|call| call_index(&call.id));
    let mut next = indices.max().map_or(0, |greatest| greatest + 1);
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut messages = messages.to_vec();
    for message in &mut messages {
        for call in &mut message.tool_calls {
            if call_index(&call.id).is_none() {
                let id = call_id(&call.name, next);
                next += 1;
                renamed.insert(std::mem::replace(&mut call.id, id.clone()), id);
            }
        }
        if let Some(id) = &mut message.tool_call_id
            && let Some(new) = renamed.get(id)
        {
            id.clone_from(new);
        }
    }
    Cow::Owned(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_ids_take_kimi_s_form_in_calls_and_answers() {
        let call = |id: &str, name: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: "{}".to_owned(),
        };
        let calls = |calls: Vec<ToolCall>| ChatMessage {
            tool_calls: calls,
            ..ChatMessage::new("assistant", "")
        };
        let result = |id: &str| ChatMessage {
            tool_call_id: Some(id.to_owned()),
            ..ChatMessage::new("tool", "")
        };
        let own = [
            calls(vec![call("functions.f:0", "f")]),
            result("functions.f:0"),
        ];
        assert!(matches!(numbered(&own), Cow::Borrowed(_)));

        let mixed = [
            calls(vec![call("call_1", "f"), call("functions.g:4", "g")]),
            result("functions.g:4"),
            result("call_1"),
            // Some clients start over in each turn.
            calls(vec![call("call_1", "h")]),
            result("call_1"),
        ];
        let numbered = numbered(&mixed);
        let ids: Vec<&str> = numbered
            .iter()
            .flat_map(|message| {
                let calls = message.tool_calls.iter().map(|call| call.id.as_str());
                calls.chain(message.tool_call_id.as_deref())
            })
            .collect();
        assert_eq!(
            ids,
            [
                "functions.f:5",
                "functions.g:4",
                "functions.g:4",
                "functions.f:5",
                "functions.h:6",
                "functions.h:6"
            ]
        );
    }
}
