//! `POST /v1/chat/completions`: a conversation in, the next message out. It must not know how the
//! model's template words a conversation.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use engine::{ChatMessage, Handle, Rendering, TurnParser};

use crate::{
    app::App,
    body,
    choice::Choice,
    error::ApiError,
    generate::{Generations, Wanted},
    models,
    openai::{Chat, Content, Message, Options, ToolCall},
    reply::{Reply, Shape},
    sampling, stream, tools,
};

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?.clone();
    let bytes: Bytes = body::read(request).await?;
    let options: Options = body::parse(&bytes)?;
    let chat: Chat = body::parse(&bytes)?;
    let model = models::resolve(&app, options.model.as_deref())?;
    let mut wanted = sampling::wanted(&options, engine.info().vocab)?;
    sampling::at_least_one_token(&options, &wanted)?;
    wanted.logprobs = logprobs(&chat)?;
    let tools = tools::tools(&chat)?;
    if let Some(calls) = tools.forced {
        if wanted.format.is_some() {
            let problem = "cannot be combined with a response_format";
            return Err(ApiError::field("tool_choice", problem));
        }
        wanted.format = Some(("tool_choice", calls));
    }
    let thinking = thinking(&chat)?;
    let prompt = prompt(&engine, chat.messages, tools.declared, thinking, true).await?;

    let mut reply = Reply::new(Shape::Chat, model, app.fingerprint(), wanted.n);
    reply.include_usage = options.include_usage();
    let choices = choices(&engine, &wanted, &prompt);
    let generations = Generations::submit(&app, &[prompt.tokens], wanted).await?;
    if options.streams() {
        return Ok(stream::respond(reply, choices, generations));
    }
    let parts = stream::collect(choices, generations).await?;
    Ok(Json(reply.whole(parts)).into_response())
}

fn choices(engine: &Handle, wanted: &Wanted, prompt: &Prompt) -> Vec<Choice> {
    let parser = TurnParser::new(engine.tokenizer(), &prompt.tokens, &prompt.messages);
    let choice = || {
        let choice = Choice::new(engine.clone(), wanted.logprobs.is_some(), None);
        choice.parsed(parser.clone())
    };
    (0..wanted.n).map(|_| choice()).collect()
}

/// Whether the model shall think first, where its template leaves the choice.
pub(crate) fn thinking(chat: &Chat) -> Result<Option<bool>, ApiError> {
    if let Some(thinking) = &chat.thinking {
        return match thinking.kind.as_str() {
            "enabled" => Ok(Some(true)),
            "disabled" => Ok(Some(false)),
            other => {
                let problem = format!("'{other}' is neither 'enabled' nor 'disabled'");
                Err(ApiError::field("thinking.type", problem))
            }
        };
    }
    let variables = chat.chat_template_kwargs.as_ref();
    Ok(variables.and_then(|variables| variables.thinking.or(variables.enable_thinking)))
}

/// A conversation, and as the model reads it.
pub(crate) struct Prompt {
    messages: Vec<ChatMessage>,
    pub(crate) tokens: Vec<u32>,
}

/// Words a conversation for the model.
pub(crate) async fn prompt(
    engine: &Handle,
    messages: Vec<Message>,
    tools: Option<String>,
    thinking: Option<bool>,
    add_generation_prompt: bool,
) -> Result<Prompt, ApiError> {
    let messages = self::messages(messages)?;
    let engine = engine.clone();
    // A long conversation takes a while to tokenize, which must not stall other connections.
    tokio::task::spawn_blocking(move || {
        let rendering = Rendering {
            tools: tools.as_deref(),
            generate: add_generation_prompt,
            thinking,
        };
        let tokens = engine.chat_tokens(&messages, rendering)?;
        Ok(Prompt { messages, tokens })
    })
    .await
    .map_err(|error| ApiError::Engine(error.to_string()))?
    .map_err(|error: engine::Error| ApiError::Conversation(error.to_string()))
}

fn logprobs(chat: &Chat) -> Result<Option<u32>, ApiError> {
    match (chat.logprobs.unwrap_or(false), chat.top_logprobs) {
        (true, top) => sampling::alternatives("top_logprobs", top.unwrap_or(0)).map(Some),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::field("top_logprobs", "needs logprobs: true")),
    }
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
