//! Every published chat template of Kimi, rendered by Jinja2 in `testdata/chat-templates/`, against
//! the native turns; and against the templates themselves where `KIMI_CHAT_TEMPLATES` names their
//! directory.
#![allow(clippy::print_stderr)]

use std::{collections::BTreeMap, env, fs, path::Path};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Rendering, Template, tests::tokenizer};
use crate::{ChatMessage, ToolCall, testing::testdata};

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<Message>,
    tools: Option<Box<RawValue>>,
    add_generation_prompt: Option<bool>,
    thinking: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<String>,
    name: Option<String>,
    reasoning_content: Option<String>,
    tool_call_id: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

impl From<Message> for ChatMessage {
    fn from(message: Message) -> Self {
        Self {
            role: message.role,
            content: message.content,
            name: message.name,
            reasoning_content: message.reasoning_content,
            tool_call_id: message.tool_call_id,
            tool_calls: message
                .tool_calls
                .into_iter()
                .map(|call| ToolCall {
                    id: call.id,
                    name: call.function.name,
                    arguments: call.function.arguments,
                })
                .collect(),
        }
    }
}

/// Renders every case with the template that `of` gives for a name, and gives back how many names had one.
fn check(of: impl Fn(&str) -> Option<Template>) -> usize {
    let read =
        |file: &str| fs::read_to_string(testdata().join("chat-templates").join(file)).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&read("cases.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&read("expected.json")).unwrap();
    assert_eq!(expected.len(), Template::names().count());
    let tokenizer = tokenizer();
    let templates: Vec<(&String, Template)> = expected
        .keys()
        .filter_map(|name| Some((name, of(name)?)))
        .collect();
    for case in cases {
        let messages: Vec<ChatMessage> = case.messages.into_iter().map(ChatMessage::from).collect();
        let rendering = Rendering {
            tools: case.tools.as_deref().map(RawValue::get),
            generate: case.add_generation_prompt.unwrap_or(true),
            thinking: case.thinking,
        };
        for (name, template) in &templates {
            // The first template could not take every conversation.
            let Some(text) = expected[*name].get(&case.name) else {
                continue;
            };
            let ids = template.render(&tokenizer, &messages, rendering).unwrap();
            assert_eq!(&tokenizer.decode(&ids), text, "{name}, {}", case.name);
            assert_eq!(
                ids,
                tokenizer.encode_with_special(text),
                "{name}, {}",
                case.name
            );
        }
    }
    templates.len()
}

#[test]
fn native_turns_equal_jinja2() {
    let count = check(|name| Some(Template::named(name).unwrap()));
    assert_eq!(count, Template::names().count());
}

#[test]
fn published_templates_render_as_in_jinja2() {
    let Some(dir) = env::var_os("KIMI_CHAT_TEMPLATES") else {
        eprintln!("skipped: KIMI_CHAT_TEMPLATES does not name the directory of the templates");
        return;
    };
    let tokenizer = tokenizer();
    let count = check(|name| {
        let source = fs::read_to_string(Path::new(&dir).join(format!("{name}.jinja"))).ok()?;
        let template = Template::from_source(&source, &tokenizer).unwrap();
        assert_eq!(template.name(), "jinja", "{name}");
        Some(template)
    });
    eprintln!("{count} templates");
    assert!(count > 0);
}
