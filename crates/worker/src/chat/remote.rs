//! Answers by a server with OpenAI's API. It must not know terminals.

use anyhow::{Context, bail};
use engine::{ChatMessage, Part};
use futures::StreamExt;
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    backend::{Speed, Wishes},
    wire::WireMessage,
};

/// Longest event a server may send.
const MAX_EVENT: usize = 16 << 20;

pub(crate) struct Remote {
    client: Client,
    /// Up to and with `/v1`.
    base: String,
    model: String,
    key: Option<String>,
}

/// One event of a stream, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

impl Remote {
    /// Asks the server for the model's name unless one is given.
    pub(crate) async fn connect(
        url: &str,
        name: Option<String>,
        key: Option<String>,
    ) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let url = url.strip_suffix("/v1").unwrap_or(url);
        let mut remote = Self {
            client: Client::new(),
            base: format!("{url}/v1"),
            model: String::new(),
            key,
        };
        remote.model = match name {
            Some(name) => name,
            None => remote.first_model().await?,
        };
        Ok(remote)
    }

    async fn first_model(&self) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}/models", self.base));
        let list: Value = self.send(request).await?.json().await?;
        let first = list.pointer("/data/0/id").and_then(Value::as_str);
        let first = first.context("the server lists no model; name one with --name")?;
        Ok(first.to_owned())
    }

    pub(crate) fn name(&self) -> &str {
        &self.model
    }

    async fn send(&self, mut request: RequestBuilder) -> anyhow::Result<Response> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("cannot reach {}", self.base))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            bail!("the server says {status}: {}", words(&body));
        }
        Ok(response)
    }

    pub(crate) async fn answer(
        &self,
        messages: &[ChatMessage],
        wishes: &Wishes,
        show: &mut dyn FnMut(Part),
    ) -> anyhow::Result<Speed> {
        let mut speed = Speed::start();
        let messages: Vec<WireMessage> = messages.iter().map(WireMessage::from).collect();
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let optional = [
            ("temperature", json!(wishes.temperature)),
            ("seed", json!(wishes.seed)),
            ("max_tokens", json!(wishes.max_tokens)),
            (
                "chat_template_kwargs",
                wishes
                    .thinking
                    .map_or(Value::Null, |thinking| json!({"thinking": thinking})),
            ),
        ];
        for (field, value) in optional {
            if !value.is_null() {
                body[field] = value;
            }
        }
        let request = self.client.post(format!("{}/chat/completions", self.base));
        let mut bytes = self.send(request.json(&body)).await?.bytes_stream();
        let mut held: Vec<u8> = Vec::new();
        while let Some(more) = bytes.next().await {
            held.extend_from_slice(&more.context("the stream broke off")?);
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                match line.trim_end().strip_prefix("data:").map(str::trim) {
                    None => {}
                    Some("[DONE]") => return Ok(speed),
                    Some(data) => event(data, &mut speed, show)?,
                }
            }
            if held.len() > MAX_EVENT {
                bail!("the server sent an event of more than {MAX_EVENT} bytes");
            }
        }
        bail!("the stream broke off")
    }
}

fn event(data: &str, speed: &mut Speed, show: &mut dyn FnMut(Part)) -> anyhow::Result<()> {
    let chunk: Chunk = serde_json::from_str(data).context("the server sent no JSON")?;
    if let Some(error) = chunk.error {
        bail!("the server failed: {}", words(&error.to_string()));
    }
    if let Some(usage) = chunk.usage {
        speed.count(usage.prompt_tokens, usage.completion_tokens);
    }
    for choice in chunk.choices {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut parts = Vec::new();
        parts.extend(filled(choice.delta.reasoning_content).map(Part::Reasoning));
        parts.extend(filled(choice.delta.content).map(Part::Content));
        for call in choice.delta.tool_calls.into_iter().flatten() {
            if let Some(name) = call.function.name {
                let id = call.id.unwrap_or_default();
                parts.push(Part::Call { id, name });
            }
            parts.extend(filled(call.function.arguments).map(Part::Arguments));
        }
        if !parts.is_empty() || choice.finish_reason.is_some() {
            speed.tick();
        }
        if choice.finish_reason.as_deref() == Some("length") {
            speed.cut();
        }
        for part in parts {
            show(part);
        }
    }
    Ok(())
}

/// The message in OpenAI's error object, or the beginning of whatever came instead.
fn words(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let message = json
        .pointer("/error/message")
        .or_else(|| json.get("message"));
    match message.and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => body.chars().take(300).collect(),
    }
}
