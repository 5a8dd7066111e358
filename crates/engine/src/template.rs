//! Conversations to prompt tokens. It must not know HTTP, and must never let user text become a
//! special token.

mod native;

use crate::{ChatMessage, Error, Tokenizer};

/// How a model wants a conversation written.
#[derive(Debug, Default)]
pub struct Template {}

impl Template {
    /// Kimi's own turns, for files without a template.
    pub fn native() -> Self {
        Self {}
    }

    /// The prompt of a conversation as tokens.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, Error> {
        native::render(tokenizer, messages, tools, add_generation_prompt)
    }
}
