//! Messages as OpenAI's JSON has them: what servers read, and what a saved conversation holds. It must
//! not know HTTP.

use engine::{ChatMessage, ToolCall};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireMessage {
    role: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireCall {
    id: String,
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: WireFunction,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireFunction {
    name: String,
    arguments: String,
}

fn function() -> String {
    "function".to_owned()
}

impl From<&ChatMessage> for WireMessage {
    fn from(message: &ChatMessage) -> Self {
        let message = message.clone();
        Self {
            role: message.role,
            content: message.content,
            name: message.name,
            reasoning_content: message.reasoning_content,
            tool_calls: message
                .tool_calls
                .into_iter()
                .map(|call| WireCall {
                    id: call.id,
                    kind: function(),
                    function: WireFunction {
                        name: call.name,
                        arguments: call.arguments,
                    },
                })
                .collect(),
            tool_call_id: message.tool_call_id,
        }
    }
}

impl From<WireMessage> for ChatMessage {
    fn from(message: WireMessage) -> Self {
        Self {
            role: message.role,
            content: message.content,
            name: message.name,
            reasoning_content: message.reasoning_content,
            tool_calls: message
                .tool_calls
                .into_iter()
                .map(|call| ToolCall {
                    id: call.id,
                    name: call.function.name,
                    arguments: call.function.arguments,
                })
                .collect(),
            tool_call_id: message.tool_call_id,
        }
    }
}
