//! Kimi's turns without Jinja, for files that carry no template: `<|im_X|>name<|im_middle|>text<|im_end|>`
//! with nothing between turns. It must not know other models' formats.

use super::json;
use crate::{ChatMessage, Error, Tokenizer};

/// What Kimi is told when the conversation does not start with a system message.
const DEFAULT_SYSTEM: &str = "You are Kimi, an AI assistant created by Moonshot AI.";

pub(super) fn render(
    tokenizer: &Tokenizer,
    messages: &[ChatMessage],
    tools: Option<&str>,
    add_generation_prompt: bool,
) -> Result<Vec<u32>, Error> {
    let mut prompt = Prompt {
        tokenizer,
        ids: Vec::new(),
    };
    if let Some(tools) = tools {
        let tools = json::dumps(
            &json::parse(tools, &str::to_owned)?,
            &json::Style::compact(),
        )
        .map_err(|error| Error::Template(error.to_string()))?;
        prompt.open("<|im_system|>", "tool_declare")?;
        prompt.text(&tools);
        prompt.special("<|im_end|>")?;
    }
    if messages.first().is_none_or(|first| first.role != "system") {
        prompt.open("<|im_system|>", "system")?;
        prompt.text(DEFAULT_SYSTEM);
        prompt.special("<|im_end|>")?;
    }
    // Thoughts before the last plain answer are over; those of a tool dance under way still count.
    let last_answer = messages
        .iter()
        .rposition(|message| message.role == "assistant" && message.tool_calls.is_empty());
    for (at, message) in messages.iter().enumerate() {
        prompt.turn(message, last_answer.is_none_or(|last| at > last))?;
    }
    if add_generation_prompt {
        prompt.open("<|im_assistant|>", "assistant")?;
    }
    Ok(prompt.ids)
}

struct Prompt<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
}

impl Prompt<'_> {
    fn special(&mut self, name: &str) -> Result<(), Error> {
        let id = self.tokenizer.special(name).ok_or_else(|| {
            Error::Template(format!(
                "the file has neither a chat template nor Kimi's token {name}"
            ))
        })?;
        self.ids.push(id);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.ids.extend(self.tokenizer.encode_ordinary(text));
    }

    fn open(&mut self, role: &str, name: &str) -> Result<(), Error> {
        self.special(role)?;
        self.text(name);
        self.special("<|im_middle|>")
    }

    fn turn(&mut self, message: &ChatMessage, keep_thoughts: bool) -> Result<(), Error> {
        let name = message.name.as_deref().unwrap_or(&message.role);
        let content = message.content.as_deref().unwrap_or_default();
        match message.role.as_str() {
            "user" => {
                self.open("<|im_user|>", name)?;
                self.text(content);
            }
            "assistant" => {
                self.open("<|im_assistant|>", name)?;
                if let Some(thoughts) = &message.reasoning_content {
                    self.special("<think>")?;
                    if keep_thoughts {
                        self.text(thoughts);
                    }
                    self.special("</think>")?;
                }
                self.text(content);
                self.calls(message)?;
            }
            "tool" => {
                self.open("<|im_system|>", name)?;
                let id = message.tool_call_id.as_deref().unwrap_or_default();
                self.text(&format!("## Return of {id}\n{content}"));
            }
            "system" => {
                self.open("<|im_system|>", name)?;
                self.text(content);
            }
            other => {
                return Err(Error::Template(format!(
                    "role {other:?}; use system, user, assistant or tool"
                )));
            }
        }
        self.special("<|im_end|>")
    }

    fn calls(&mut self, message: &ChatMessage) -> Result<(), Error> {
        if message.tool_calls.is_empty() {
            return Ok(());
        }
        self.special("<|tool_calls_section_begin|>")?;
        for call in &message.tool_calls {
            self.special("<|tool_call_begin|>")?;
            self.text(&call.id);
            self.special("<|tool_call_argument_begin|>")?;
            self.text(&call.arguments);
            self.special("<|tool_call_end|>")?;
        }
        self.special("<|tool_calls_section_end|>")
    }
}
