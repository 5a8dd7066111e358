//! Kimi's turns without Jinja, for files that carry no template: `<|im_X|>name<|im_middle|>text<|im_end|>`
//! with nothing between turns. It must not know other models' formats.

use minijinja::Value;

use super::{
    Rendering, json,
    revision::{Calls, Revision, Tools},
    typescript,
};
use crate::{ChatMessage, Error, Tokenizer};

pub(super) fn render(
    revision: &Revision,
    tokenizer: &Tokenizer,
    messages: &[ChatMessage],
    rendering: Rendering<'_>,
) -> Result<Vec<u32>, Error> {
    let mut prompt = Prompt {
        revision,
        tokenizer,
        ids: Vec::new(),
    };
    if let Some(tools) = rendering.tools {
        let tools = declared(tools, &revision.tools)?;
        prompt.open("<|im_system|>", "tool_declare")?;
        prompt.text(&tools);
        prompt.special("<|im_end|>")?;
    }
    if let Some(system) = revision.default_system
        && messages.first().is_none_or(|first| first.role != "system")
    {
        prompt.open("<|im_system|>", "system")?;
        prompt.text(system);
        prompt.special("<|im_end|>")?;
    }
    // Thoughts before the last plain answer are over; those of a tool dance under way still count.
    let last_answer = messages
        .iter()
        .rposition(|message| message.role == "assistant" && message.tool_calls.is_empty());
    let thinks = !(revision.opens_thoughts && rendering.thinking == Some(false));
    for (at, message) in messages.iter().enumerate() {
        let keep_thoughts = thinks && last_answer.is_none_or(|last| at > last);
        prompt.turn(message, keep_thoughts)?;
    }
    if rendering.generate {
        prompt.open("<|im_assistant|>", "assistant")?;
        if revision.opens_thoughts {
            prompt.special("<think>")?;
            if !thinks {
                prompt.special("</think>")?;
            }
        }
    }
    Ok(prompt.ids)
}

/// The text of the turn that declares tools.
fn declared(tools: &str, style: &Tools) -> Result<String, Error> {
    let dump = |tools: &str, style: &json::Style| {
        json::dumps(&json::parse(tools, &str::to_owned)?, style)
            .map_err(|error| Error::Template(error.to_string()))
    };
    match style {
        Tools::Json => dump(tools, &json::Style::default()),
        Tools::TitledJson => {
            let tools = dump(tools, &json::Style::default())?;
            Ok(format!("\n  # Tools\n  {tools}"))
        }
        Tools::CompactJson => dump(tools, &json::Style::compact()),
        Tools::TypeScript => {
            let sorted = typescript::Declared::read(tools)?;
            match sorted.types {
                Some(types) => Ok(types),
                None => dump(&sorted.json, &json::Style::compact()),
            }
        }
    }
}

struct Prompt<'t> {
    revision: &'t Revision,
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
        let role = message.role.as_str();
        let name = message.name.as_deref().filter(|name| !name.is_empty());
        let name = name.filter(|_| self.revision.names).unwrap_or(role);
        let content = message.content.as_deref().unwrap_or_default();
        let gap = self.revision.system_gap;
        match role {
            "user" => {
                self.open("<|im_user|>", name)?;
                self.text(content);
            }
            "assistant" => {
                self.open("<|im_assistant|>", name)?;
                if self.revision.thoughts {
                    self.special("<think>")?;
                    if keep_thoughts {
                        self.text(message.reasoning_content.as_deref().unwrap_or_default());
                    }
                    self.special("</think>")?;
                }
                self.text(content);
                self.calls(message)?;
            }
            "tool" => {
                self.open("<|im_system|>", name)?;
                let id = message.tool_call_id.as_deref().unwrap_or_default();
                match self.revision.result_gap {
                    Some(space) => self.text(&format!("{gap}## Return of {id}{space}{content}")),
                    None => self.text(&format!("{gap}{content}")),
                }
            }
            "system" => {
                self.open("<|im_system|>", name)?;
                self.text(&format!("{gap}{content}"));
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
        let calls = &message.tool_calls;
        if calls.is_empty() || self.revision.calls == Calls::Dropped {
            return Ok(());
        }
        self.special("<|tool_calls_section_begin|>")?;
        for (at, call) in calls.iter().enumerate() {
            let (id, arguments) = match self.revision.calls {
                Calls::Recounted => {
                    let arguments = json::dumps(
                        &Value::from(call.arguments.as_str()),
                        &json::Style::default(),
                    );
                    let arguments =
                        arguments.map_err(|error| Error::Template(error.to_string()))?;
                    (format!("functions.{}:{at}", call.name), arguments)
                }
                Calls::Dropped | Calls::AsMade => (call.id.clone(), call.arguments.clone()),
            };
            self.special("<|tool_call_begin|>")?;
            self.text(&id);
            self.special("<|tool_call_argument_begin|>")?;
            self.text(&arguments);
            self.special("<|tool_call_end|>")?;
        }
        self.special("<|tool_calls_section_end|>")
    }
}
