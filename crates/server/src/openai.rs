//! What OpenAI clients send, as far as we act on it; unknown fields are ignored, as OpenAI does. It
//! must not know the engine's types or limits: [`crate::sampling`] and the handlers check values.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// Fields common to chat and text completions.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Options {
    pub(crate) model: Option<String>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_completion_tokens: Option<u64>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f32>,
    #[serde(default)]
    pub(crate) stop: Stop,
    pub(crate) seed: Option<i64>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) logit_bias: Option<BTreeMap<String, f32>>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) n: Option<u64>,
    pub(crate) response_format: Option<ResponseFormat>,
}

impl Options {
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

/// `response_format`; llama-server's form has the schema right beside the type.
#[derive(Debug, Deserialize)]
pub(crate) struct ResponseFormat {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) json_schema: Option<JsonSchema>,
    pub(crate) schema: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct JsonSchema {
    pub(crate) schema: Option<Box<RawValue>>,
}

/// The body of `/v1/chat/completions`, less [`Options`].
#[derive(Debug, Deserialize)]
pub(crate) struct Chat {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Option<Vec<Box<RawValue>>>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) parallel_tool_calls: Option<bool>,
    /// vLLM's and llama-server's way to variables of the template.
    pub(crate) chat_template_kwargs: Option<TemplateVariables>,
    /// Moonshot's own way to turn thoughts on and off.
    pub(crate) thinking: Option<Thinking>,
    pub(crate) logprobs: Option<bool>,
    pub(crate) top_logprobs: Option<u64>,
}

/// The variables of the template that a client can set.
#[derive(Debug, Deserialize)]
pub(crate) struct TemplateVariables {
    pub(crate) thinking: Option<bool>,
    pub(crate) enable_thinking: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Thinking {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Content,
    pub(crate) name: Option<String>,
    pub(crate) reasoning_content: Option<String>,
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    pub(crate) tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) function: Function,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// A message's content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Content {
    #[default]
    None,
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
}

/// Visitors instead of untagged enums: those would answer "did not match any variant".
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
                Ok(Content::None)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// `stop`: nothing, a string or a list of strings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stop(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Stop;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Stop, E> {
                Ok(Stop::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
                let mut list = Vec::new();
                while let Some(text) = seq.next_element()? {
                    list.push(text);
                }
                Ok(Stop(list))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// The body of `/v1/completions`, less [`Options`].
#[derive(Debug, Deserialize)]
pub(crate) struct Completion {
    pub(crate) prompt: Prompts,
    pub(crate) echo: Option<bool>,
    pub(crate) logprobs: Option<u64>,
    pub(crate) best_of: Option<u64>,
    pub(crate) suffix: Option<String>,
}

/// One prompt, or several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompts(pub(crate) Vec<Prompt>);

/// One prompt: text, or token ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected strings only, token ids only, or lists of token ids only"
        )]
        enum Item {
            Text(String),
            Token(u32),
            Tokens(Vec<u32>),
        }
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Prompts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of strings, a list of token ids, or a list of those")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
                let mut prompts = Vec::new();
                let mut single = Vec::new();
                while let Some(item) = seq.next_element()? {
                    match item {
                        Item::Text(text) => prompts.push(Prompt::Text(text)),
                        Item::Tokens(tokens) => prompts.push(Prompt::Tokens(tokens)),
                        Item::Token(id) => single.push(id),
                    }
                    if !single.is_empty() && !prompts.is_empty() {
                        return Err(de::Error::custom("text and token ids do not mix"));
                    }
                }
                if prompts.is_empty() {
                    prompts.push(Prompt::Tokens(single));
                }
                Ok(Prompts(prompts))
            }
        }
        deserializer.deserialize_any(V)
    }
}
