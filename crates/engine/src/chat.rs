//! A conversation as the engine sees it. It must not know the JSON of any HTTP API: the server
//! fills these in.

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
