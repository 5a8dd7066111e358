//! Conversations to prompt tokens: the model's own Jinja template, or Kimi's turns where the file
//! has none. It must not know HTTP, and must never let user text become a special token.

mod guard;
mod jinja;
mod json;
mod native;
mod revision;
mod typescript;

use std::{fmt, fs, path::PathBuf};

use minijinja::Value;

use self::{jinja::Jinja, revision::Revision};
use crate::{ChatMessage, Error, Tokenizer, ToolCall};

/// The variable in which K2.5's template wants tools as TypeScript.
const TOOLS_AS_TYPESCRIPT: &str = "tools_ts_str";

/// Which template to render with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The one in the model's file, or Kimi's turns as the model's name suggests.
    #[default]
    Model,
    /// One of [`Template::names`], rendered without Jinja.
    Named(String),
    /// A Jinja template of the user's.
    File(PathBuf),
}

/// How to render a conversation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rendering<'a> {
    /// JSON text of the declared tools as the client wrote it, since the order of keys reaches the
    /// model.
    pub tools: Option<&'a str>,
    /// Whether the prompt opens the assistant's next turn.
    pub generate: bool,
    /// Whether the model shall think first, where its template leaves the choice.
    pub thinking: Option<bool>,
}

impl Rendering<'_> {
    /// A prompt for the assistant's next turn, without tools.
    pub fn answer() -> Self {
        Self {
            generate: true,
            ..Self::default()
        }
    }
}

/// How a model wants a conversation written.
pub struct Template {
    kind: Kind,
}

enum Kind {
    Native(&'static Revision),
    Jinja {
        jinja: Box<Jinja>,
        /// Whether the template reads [`TOOLS_AS_TYPESCRIPT`].
        typescript: bool,
    },
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("name", &self.name())
            .finish()
    }
}

impl Template {
    /// Names of the templates that need no file.
    pub fn names() -> impl Iterator<Item = &'static str> {
        revision::REVISIONS.iter().map(|revision| revision.name)
    }

    /// The template of that name.
    ///
    /// # Errors
    /// [`Error::Template`] listing the names there are.
    pub fn named(name: &str) -> Result<Self, Error> {
        let revision = revision::named(name).ok_or_else(|| {
            let names: Vec<_> = Self::names().collect();
            Error::Template(format!(
                "there is no template '{name}'; use one of {}",
                names.join(", ")
            ))
        })?;
        Ok(Self::native(revision))
    }

    /// What `choice` says for a model of this name whose file holds `source`.
    pub(crate) fn choose(
        choice: &TemplateChoice,
        source: Option<&str>,
        model: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        match (choice, source) {
            (TemplateChoice::Named(name), _) => Self::named(name),
            (TemplateChoice::File(path), _) => {
                let template = fs::read_to_string(path)
                    .map_err(|error| Error::Template(error.to_string()))
                    .and_then(|source| Self::compile(&source, tokenizer))
                    .and_then(|template| template.try_on(tokenizer).map(|()| template));
                template.map_err(|error| match error {
                    Error::Template(words) => {
                        Error::Template(format!("{}: {words}", path.display()))
                    }
                    other => other,
                })
            }
            (TemplateChoice::Model, Some(source)) => Self::from_source(source, tokenizer),
            (TemplateChoice::Model, None) => Ok(Self::native(revision::of_model(model))),
        }
    }

    /// Compiles a model's template and tries it on a conversation with tools. A template that asks
    /// for more of Python than there is here gives way to Kimi's native turns, with a warning, when
    /// the vocabulary has their tokens.
    ///
    /// # Errors
    /// [`Error::Template`] when the template does not work and native turns cannot stand in.
    pub fn from_source(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let template = Self::compile(source, tokenizer)
            .and_then(|template| template.try_on(tokenizer).map(|()| template));
        template.or_else(|error| {
            let native = Self::native(revision::of_source(source));
            if native.try_on(tokenizer).is_err() {
                return Err(error);
            }
            tracing::warn!(%error, instead = native.name(), "the file's template does not work");
            Ok(native)
        })
    }

    fn native(revision: &'static Revision) -> Self {
        Self {
            kind: Kind::Native(revision),
        }
    }

    fn compile(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let token = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id])).unwrap_or_default();
        let globals = [
            ("bos_token", token(tokenizer.bos())),
            ("eos_token", token(tokenizer.eos())),
        ];
        Ok(Self {
            kind: Kind::Jinja {
                jinja: Box::new(Jinja::compile(source, globals)?),
                typescript: source.contains(TOOLS_AS_TYPESCRIPT),
            },
        })
    }

    /// Renders a conversation that takes every road of a template.
    fn try_on(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let rendering = Rendering {
            tools: Some(PROBE_TOOLS),
            ..Rendering::answer()
        };
        self.render(tokenizer, &probe(), rendering).map(|_| ())
    }

    /// Its name, `jinja` for a template with a source.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Native(revision) => revision.name,
            Kind::Jinja { .. } => "jinja",
        }
    }

    /// The prompt of a conversation as tokens.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation or `tools` is not JSON.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        rendering: Rendering<'_>,
    ) -> Result<Vec<u32>, Error> {
        let (jinja, typescript) = match &self.kind {
            Kind::Native(revision) => {
                return native::render(revision, tokenizer, messages, rendering);
            }
            Kind::Jinja { jinja, typescript } => (jinja, *typescript),
        };
        // User text goes in guarded: the special names in it are broken, so that every name in the
        // rendered text is the template's own; the breaks are taken out of the text between.
        let guarded = |text: &str| guard::guard(text, tokenizer);
        let mut context = Vec::new();
        let tools = match rendering.tools {
            None => Value::from(()),
            Some(tools) if typescript => {
                let declared = typescript::Declared::read(tools)?;
                if let Some(types) = declared.types {
                    context.push((TOOLS_AS_TYPESCRIPT, Value::from(guarded(&types))));
                }
                json::parse(&declared.json, &guarded)?
            }
            Some(tools) => json::parse(tools, &guarded)?,
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| message_value(message, tokenizer))
            .collect();
        context.push(("messages", Value::from(messages)));
        context.push(("tools", tools));
        context.push(("add_generation_prompt", Value::from(rendering.generate)));
        if let Some(thinking) = rendering.thinking {
            // Kimi's word, and the word that other models' templates have for the same.
            context.push(("thinking", Value::from(thinking)));
            context.push(("enable_thinking", Value::from(thinking)));
        }
        let text = jinja.render(context)?;

        let mut ids = Vec::new();
        tokenizer.for_each_special(&text, |piece, special| {
            ids.extend(tokenizer.encode_ordinary(&guard::unguard(piece)));
            ids.extend(special);
        });
        Ok(ids)
    }
}

/// A message with the keys that clients of transformers would send; absent ones stay undefined.
fn message_value(message: &ChatMessage, tokenizer: &Tokenizer) -> Value {
    let guarded = |text: &String| Value::from(guard::guard(text, tokenizer));
    let ChatMessage {
        role,
        content,
        name,
        reasoning_content,
        tool_calls,
        tool_call_id,
    } = message;
    // Text even where there is none: some templates would iterate over anything else.
    let content = content.as_ref().map_or_else(|| Value::from(""), guarded);
    let mut fields = vec![("role", guarded(role)), ("content", content)];
    let optional = [
        ("name", name),
        ("reasoning_content", reasoning_content),
        ("tool_call_id", tool_call_id),
    ];
    for (key, text) in optional {
        fields.extend(text.as_ref().map(|text| (key, guarded(text))));
    }
    if !tool_calls.is_empty() {
        let calls: Vec<Value> = tool_calls
            .iter()
            .map(
                |ToolCall {
                     id,
                     name,
                     arguments,
                 }| {
                    let function = Value::from_pairs([
                        ("name", guarded(name)),
                        ("arguments", guarded(arguments)),
                    ]);
                    Value::from_pairs([
                        ("id", guarded(id)),
                        ("type", Value::from("function")),
                        ("function", function),
                    ])
                },
            )
            .collect();
        fields.push(("tool_calls", Value::from(calls)));
    }
    Value::from_pairs(fields)
}

/// A conversation that takes every road of a template.
fn probe() -> Vec<ChatMessage> {
    let call = ToolCall {
        id: "functions.probe:0".to_owned(),
        name: "probe".to_owned(),
        arguments: "{}".to_owned(),
    };
    vec![
        ChatMessage::new("system", "system"),
        ChatMessage::new("user", "question"),
        ChatMessage {
            reasoning_content: Some("thought".to_owned()),
            tool_calls: vec![call],
            ..ChatMessage::new("assistant", "")
        },
        ChatMessage {
            tool_call_id: Some("functions.probe:0".to_owned()),
            ..ChatMessage::new("tool", "result")
        },
        ChatMessage::new("assistant", "answer"),
        ChatMessage::new("user", "question"),
    ]
}

/// Tools for [`probe`].
const PROBE_TOOLS: &str = r#"[{"type":"function","function":{"name":"probe","parameters":{"type":"object","properties":{}}}}]"#;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod goldens;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
