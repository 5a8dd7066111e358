//! The tools a conversation declares, and those its answer has to call. It must not know how a model's
//! template words either.

use engine::{AnswerFormat, CallableTool};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{error::ApiError, openai::Chat};

/// More tools than any client declares; each is rendered into the prompt.
const MAX_TOOLS: usize = 128;

/// What a conversation says of tools.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tools {
    /// The declarations as a JSON list with the client's own order of keys.
    pub(crate) declared: Option<String>,
    /// What the answer must be, where calls are not left to the model.
    pub(crate) forced: Option<AnswerFormat>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    parameters: Option<Box<RawValue>>,
}

enum Choice {
    Auto,
    Never,
    Required,
    One(String),
}

/// Checks `tools`, `tool_choice` and `parallel_tool_calls`.
pub(crate) fn tools(chat: &Chat) -> Result<Tools, ApiError> {
    let choice = choice(chat.tool_choice.as_ref())?;
    let list = chat.tools.as_deref().unwrap_or_default();
    if list.len() > MAX_TOOLS {
        let problem = format!("{} tools, at most {MAX_TOOLS} are taken", list.len());
        return Err(ApiError::field("tools", problem));
    }
    let mut callable = Vec::with_capacity(list.len());
    for (index, tool) in list.iter().enumerate() {
        let Ok(Tool { function }) = serde_json::from_str(tool.get()) else {
            let problem = r#"not of the form {"type":"function","function":{"name":…}}"#;
            return Err(ApiError::field(format!("tools[{index}]"), problem));
        };
        callable.push(CallableTool {
            name: function.name,
            parameters: function.parameters.map(|schema| schema.get().to_owned()),
        });
    }
    let texts: Vec<&str> = list.iter().map(|tool| tool.get()).collect();
    let declared = (!texts.is_empty()).then(|| format!("[{}]", texts.join(",")));
    let wanted = match choice {
        Choice::Never => return Ok(Tools::default()),
        Choice::Auto => None,
        Choice::Required => Some(callable),
        Choice::One(name) => {
            callable.retain(|tool| tool.name == name);
            if callable.is_empty() {
                let problem = format!("'{name}' is not among the tools");
                return Err(ApiError::field("tool_choice.function.name", problem));
            }
            Some(callable)
        }
    };
    if wanted.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::field("tool_choice", "needs tools"));
    }
    let parallel = chat.parallel_tool_calls.unwrap_or(true);
    let forced = wanted.map(|tools| AnswerFormat::ToolCalls { tools, parallel });
    Ok(Tools { declared, forced })
}

fn choice(value: Option<&Value>) -> Result<Choice, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(Choice::Auto),
        Some(Value::String(word)) if word == "auto" => Ok(Choice::Auto),
        Some(Value::String(word)) if word == "none" => Ok(Choice::Never),
        Some(Value::String(word)) if word == "required" => Ok(Choice::Required),
        Some(other) => match other.pointer("/function/name") {
            Some(Value::String(name)) => Ok(Choice::One(name.clone())),
            _ => Err(ApiError::field(
                "tool_choice",
                r#"none of 'auto', 'none', 'required', {"type":"function","function":{"name":…}}"#,
            )),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::body::parse;

    const TWO: &str = r#"[{"type":"function","function":{"name":"a","parameters":{"type": "null"}}},{"type":"function","function":{"name":"b"}}]"#;

    fn check(rest: &str) -> Result<Tools, String> {
        let json = format!(r#"{{"messages":[],{rest}}}"#);
        let chat: Chat = parse(json.as_bytes()).map_err(|error| error.to_string())?;
        tools(&chat).map_err(|error| error.to_string())
    }

    #[test]
    fn calls_are_free_barred_or_forced() {
        let of = |choice: &str| check(&format!(r#""tools":{TWO},"tool_choice":{choice}"#)).unwrap();
        let auto = of(r#""auto""#);
        assert_eq!((auto.declared.as_deref(), auto.forced), (Some(TWO), None));
        assert_eq!(of(r#""none""#), Tools::default());
        let Some(AnswerFormat::ToolCalls { tools, parallel }) = of(r#""required""#).forced else {
            unreachable!("calls are forced")
        };
        assert!(parallel);
        assert_eq!(tools[0].parameters.as_deref(), Some(r#"{"type": "null"}"#));
        assert_eq!(tools[1].parameters, None);
        let one = of(r#"{"type":"function","function":{"name":"b"}}"#);
        let Some(AnswerFormat::ToolCalls { tools, .. }) = one.forced else {
            unreachable!("a call is forced")
        };
        assert_eq!((tools.len(), tools[0].name.as_str()), (1, "b"));
        assert_eq!(one.declared.as_deref(), Some(TWO), "all are declared");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (rest, says) in [
            (r#""tool_choice":"required""#, "tool_choice: needs tools"),
            (r#""tool_choice":"maybe""#, "tool_choice: none of 'auto'"),
            (
                r#""tools":[{"type":"function"}]"#,
                "tools[0]: not of the form",
            ),
            (
                r#""tools":[],"tool_choice":{"type":"function","function":{"name":"x"}}"#,
                "tool_choice.function.name: 'x' is not among the tools",
            ),
        ] {
            let error = check(rest).unwrap_err();
            assert!(error.starts_with(says), "{rest}: {error}");
        }
        let many = format!(r#""tools":[{}]"#, vec!["1"; 129].join(","));
        assert!(check(&many).unwrap_err().starts_with("tools: 129 tools"));
    }
}
