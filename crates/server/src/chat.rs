//! `POST /v1/chat/completions`: a conversation in, the next message out. It must not know how the
//! model's template words a conversation.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use engine::ChatMessage;
use serde_json::{Value, value::RawValue};

use crate::{
    app::App,
    body,
    error::ApiError,
    generate::{Generation, Wanted},
    models,
    openai::{Chat, Content, Message, Options, ToolCall},
    reply::{Reply, Shape},
    stream,
};

/// More tools than any client declares; each is rendered into the prompt.
const MAX_TOOLS: usize = 128;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?.clone();
    let bytes: Bytes = body::read(request).await?;
    let options: Options = body::parse(&bytes)?;
    let chat: Chat = body::parse(&bytes)?;
    let model = models::resolve(&app, options.model.as_deref())?;
    let wanted = Wanted::check(&options, engine.info().vocab)?;
    let tools = tools(chat.tools, chat.tool_choice.as_ref())?;
    let messages = messages(chat.messages)?;

    let reply = Reply::new(Shape::Chat, model, app.fingerprint());
    // A long conversation takes a while to tokenize, which must not stall other connections.
    let tokens =
        tokio::task::spawn_blocking(move || engine.chat_tokens(&messages, tools.as_deref(), true))
            .await
            .map_err(|error| ApiError::Engine(error.to_string()))?
            .map_err(|error| ApiError::Conversation(error.to_string()))?;
    let generation = Generation::submit(&app, tokens, wanted)?;
    if options.streams() {
        return Ok(stream::respond(reply, generation, options.include_usage()));
    }
    let (text, finish) = generation.collect().await?;
    Ok(Json(reply.whole(text, &finish)).into_response())
}

/// The tools as JSON text with the client's own order of keys, or `None`.
fn tools(
    tools: Option<Vec<Box<RawValue>>>,
    choice: Option<&Value>,
) -> Result<Option<String>, ApiError> {
    match choice {
        None | Some(Value::Null) => {}
        Some(Value::String(word)) if word == "auto" => {}
        Some(Value::String(word)) if word == "none" => return Ok(None),
        Some(_) => {
            return Err(ApiError::field(
                "tool_choice",
                "only 'auto' and 'none' are supported",
            ));
        }
    }
    let Some(tools) = tools.filter(|tools| !tools.is_empty()) else {
        return Ok(None);
    };
    if tools.len() > MAX_TOOLS {
        let problem = format!("{} tools, at most {MAX_TOOLS} are taken", tools.len());
        return Err(ApiError::field("tools", problem));
    }
    for (index, tool) in tools.iter().enumerate() {
        let named = serde_json::from_str::<Value>(tool.get())
            .is_ok_and(|tool| tool.pointer("/function/name").is_some_and(Value::is_string));
        if !named {
            let problem = r#"not of the form {"type":"function","function":{"name":…}}"#;
            return Err(ApiError::field(format!("tools[{index}]"), problem));
        }
    }
    let list: Vec<&str> = tools.iter().map(|tool| tool.get()).collect();
    Ok(Some(format!("[{}]", list.join(","))))
}

fn messages(messages: Vec<Message>) -> Result<Vec<ChatMessage>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "at least one is needed"));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| one(index, message))
        .collect()
}

fn one(index: usize, message: Message) -> Result<ChatMessage, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let role = match message.role.as_str() {
        "system" | "user" | "assistant" | "tool" => message.role,
        // OpenAI's newer word for the same.
        "developer" => "system".to_owned(),
        other => {
            let problem = format!("'{other}' is none of system, developer, user, assistant, tool");
            return Err(ApiError::field(at("role"), problem));
        }
    };
    let content = match message.content {
        Content::None => None,
        Content::Text(text) => Some(text),
        Content::Parts(parts) => {
            let mut whole = String::new();
            for (number, part) in parts.into_iter().enumerate() {
                let at = || at(&format!("content[{number}]"));
                match (part.kind.as_str(), part.text) {
                    ("text", Some(text)) => whole.push_str(&text),
                    ("text", None) => {
                        return Err(ApiError::field(at(), "a text part without text"));
                    }
                    (other, _) => {
                        let problem =
                            format!("parts of type '{other}' are not supported, only 'text'");
                        return Err(ApiError::field(at(), problem));
                    }
                }
            }
            Some(whole)
        }
    };
    let tool_calls: Vec<_> = message
        .tool_calls
        .unwrap_or_default()
        .into_iter()
        .map(tool_call)
        .collect();
    let calls_tools = role == "assistant" && !tool_calls.is_empty();
    if content.is_none() && !calls_tools {
        return Err(ApiError::field(at("content"), "missing"));
    }
    Ok(ChatMessage {
        role,
        content,
        name: message.name,
        reasoning_content: message.reasoning_content,
        tool_calls,
        tool_call_id: message.tool_call_id,
    })
}

fn tool_call(call: ToolCall) -> engine::ToolCall {
    engine::ToolCall {
        id: call.id,
        name: call.function.name,
        arguments: call.function.arguments,
    }
}
