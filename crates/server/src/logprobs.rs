//! Token likelihoods in OpenAI's two forms, chat's and text's. It must not know where they come from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    choice::{Entry, Named},
    reply::Shape,
};

/// What OpenAI says for a token that cannot be; JSON has no infinity.
const LEAST: f32 = -9999.0;

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum WireLogprobs {
    Chat {
        content: Vec<ChatToken>,
        refusal: Option<()>,
    },
    Text {
        tokens: Vec<String>,
        token_logprobs: Vec<Option<f32>>,
        top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
        text_offset: Vec<usize>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatToken {
    #[serde(flatten)]
    token: RatedToken,
    top_logprobs: Vec<RatedToken>,
}

#[derive(Debug, Serialize)]
struct RatedToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl WireLogprobs {
    /// Chat leaves out the token that ended the answer; text has it, as clients that score a text
    /// count on one token after it.
    pub(crate) fn new(shape: Shape, entries: Vec<Entry>) -> Self {
        match shape {
            Shape::Chat => Self::Chat {
                content: entries
                    .into_iter()
                    .filter(|entry| !entry.is_end)
                    .map(chat_token)
                    .collect(),
                refusal: None,
            },
            Shape::Text => text(entries),
        }
    }
}

fn chat_token(entry: Entry) -> ChatToken {
    ChatToken {
        token: rated(entry.token, entry.logprob.unwrap_or(0.0)),
        top_logprobs: entry
            .top
            .into_iter()
            .map(|(token, logprob)| rated(token, logprob))
            .collect(),
    }
}

fn rated(token: Named, logprob: f32) -> RatedToken {
    RatedToken {
        token: String::from_utf8_lossy(&token.0).into_owned(),
        logprob: logprob.max(LEAST),
        bytes: token.0,
    }
}

fn text(entries: Vec<Entry>) -> WireLogprobs {
    let mut tokens = Vec::with_capacity(entries.len());
    let mut token_logprobs = Vec::with_capacity(entries.len());
    let mut top_logprobs = Vec::with_capacity(entries.len());
    let mut text_offset = Vec::with_capacity(entries.len());
    for entry in entries {
        let token = key(&entry.token);
        // The likeliest, and the token itself where it is none of them.
        let top = entry.logprob.map(|own| {
            let mut top = BTreeMap::from([(token.clone(), own.max(LEAST))]);
            for (other, logprob) in &entry.top {
                top.entry(key(other)).or_insert(logprob.max(LEAST));
            }
            top
        });
        tokens.push(token);
        token_logprobs.push(entry.logprob.map(|own| own.max(LEAST)));
        top_logprobs.push(top);
        text_offset.push(entry.offset);
    }
    WireLogprobs::Text {
        tokens,
        token_logprobs,
        top_logprobs,
        text_offset,
    }
}

/// A token as a key: parts of characters as `bytes:\xe4\xbd`, so that no two tokens look alike.
fn key(token: &Named) -> String {
    match std::str::from_utf8(&token.0) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let escaped: String = token
                .0
                .iter()
                .map(|byte| format!("\\x{byte:02x}"))
                .collect();
            format!("bytes:{escaped}")
        }
    }
}
