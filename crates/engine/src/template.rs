//! Conversations to prompt tokens: the model's own Jinja template, or Kimi's turns where the file
//! has none. It must not know HTTP, and must never let user text become a special token.

mod guard;
mod json;
mod native;

use std::fmt;

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, Value, syntax::SyntaxConfig, value::Kwargs,
};
use minijinja_contrib::pycompat;

use crate::{ChatMessage, Error, Tokenizer, ToolCall};

/// The name the template goes by in error messages.
const NAME: &str = "chat_template";

/// Longest template taken from a file; Kimi's are below 8 KiB.
const MAX_SOURCE: usize = 1 << 20;

/// How a model wants a conversation written.
pub struct Template {
    /// `None` renders Kimi's turns natively.
    jinja: Option<Environment<'static>>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("native", &self.jinja.is_none())
            .finish()
    }
}

impl Template {
    /// Kimi's own turns, for files without a template.
    pub fn native() -> Self {
        Self { jinja: None }
    }

    /// Compiles a model's template and tries it on a conversation with tools. A template that asks
    /// for more of Python than there is here gives way to Kimi's native turns, with a warning, when
    /// the vocabulary has their tokens.
    ///
    /// # Errors
    /// [`Error::Template`] when the template does not work and native turns cannot stand in.
    pub fn from_source(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let template = Self::compile(source, tokenizer).and_then(|template| {
            template
                .render(tokenizer, &probe(), Some(PROBE_TOOLS), true)
                .map(|_| template)
        });
        template.or_else(|error| {
            let native = Self::native();
            let works = native.render(tokenizer, &probe(), Some(PROBE_TOOLS), true).is_ok();
            if !works {
                return Err(error);
            }
            tracing::warn!(%error, "rendering Kimi's turns natively instead of the file's template");
            Ok(native)
        })
    }

    fn compile(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE {
            return Err(Error::Template(format!(
                "{} bytes; at most {MAX_SOURCE} are read",
                source.len()
            )));
        }
        let mut jinja = Environment::new();
        // As transformers sets Jinja up for chat templates.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        jinja.set_syntax(syntax.map_err(refused)?);
        jinja.set_unknown_method_callback(pycompat::unknown_method_callback);
        jinja.add_filter("tojson", tojson);
        jinja.add_function(
            "raise_exception",
            |message: String| -> Result<Value, JinjaError> {
                Err(JinjaError::new(ErrorKind::InvalidOperation, message))
            },
        );
        for (variable, id) in [
            ("bos_token", tokenizer.bos()),
            ("eos_token", tokenizer.eos()),
        ] {
            let text = id.map(|id| tokenizer.decode(&[id])).unwrap_or_default();
            jinja.add_global(variable, text);
        }
        jinja
            .add_template_owned(NAME, source.to_owned())
            .map_err(refused)?;
        Ok(Self { jinja: Some(jinja) })
    }

    /// The prompt of a conversation as tokens. `tools` is the JSON text of the declared tools as the
    /// client wrote it, since the order of keys reaches the model.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation or `tools` is not JSON.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        tools: Option<&str>,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, Error> {
        let Some(jinja) = &self.jinja else {
            return native::render(tokenizer, messages, tools, add_generation_prompt);
        };
        // User text goes in guarded: the special names in it are broken, so that every name in the
        // rendered text is the template's own; the breaks are taken out of the text between.
        let tools = match tools {
            Some(text) => json::parse(text, &|text| guard::guard(text, tokenizer))?,
            None => Value::from(()),
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| message_value(message, tokenizer))
            .collect();
        let context = Value::from_pairs([
            ("messages", Value::from(messages)),
            ("tools", tools),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ]);
        let text = jinja
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(refused)?;

        let mut ids = Vec::new();
        tokenizer.for_each_special(&text, |piece, special| {
            ids.extend(tokenizer.encode_ordinary(&guard::unguard(piece)));
            ids.extend(special);
        });
        Ok(ids)
    }
}

/// The whole chain of causes: minijinja's outermost message alone seldom says what to change.
#[allow(clippy::needless_pass_by_value)]
fn refused(error: JinjaError) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Error::Template(text)
}

/// `tojson` as transformers registers it: `json.dumps` with `ensure_ascii` off.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, JinjaError> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(usize::try_from(indent)?),
    };
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        None => None,
        Some(pair) if pair.is_none() => None,
        Some(pair) => Some((
            pair.get_item_by_index(0)?.to_string(),
            pair.get_item_by_index(1)?.to_string(),
        )),
    };
    let style = json::Style {
        indent,
        separators,
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json::dumps(value, &style).map(Value::from)
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
mod tests;
