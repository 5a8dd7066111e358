//! Answers held to a form: JSON by a schema, or calls of declared tools. A grammar says after each token
//! which ones may follow; this file turns that into logits. It must not know requests or HTTP.

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};

use crate::{Error, Tokenizer, sampler::likeliest};

/// Longest token that can be part of a constrained answer, in bytes; the table has no longer ones.
const MAX_TOKEN_BYTES: usize = 1000;

/// Most bytes of all tokens together, a limit of the table.
const MAX_TABLE_BYTES: usize = 4_000_000;

/// Blanks allowed between the parts of a JSON text: none, one, or a new line and its indentation.
/// Without a limit a model could go on with blanks for ever.
const BLANKS: &str = r" |\n {0,16}";

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerFormat {
    /// Any JSON object.
    JsonObject,
    /// JSON that this schema, itself JSON text, describes.
    JsonSchema(String),
    /// Nothing but calls of these tools.
    ToolCalls {
        /// Tools that may be called; at least one.
        tools: Vec<CallableTool>,
        /// Whether there may be more than one call.
        parallel: bool,
    },
}

/// A tool that an answer may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallableTool {
    /// Function name: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// JSON schema of its arguments as JSON text; `None` allows any object.
    pub parameters: Option<String>,
}

/// What all constraints over one vocabulary share: its tokens as a tree of bytes.
pub(crate) struct Grammars {
    factory: ParserFactory,
    thinking: Option<Thinking>,
    call: Option<CallTokens>,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// The tokens around a thought, and those that must not occur in one: all other special tokens.
#[derive(Clone)]
struct Thinking {
    begin: u32,
    end: u32,
    barred: Arc<[u32]>,
}

/// The tokens around tool calls.
#[derive(Clone, Copy)]
struct CallTokens {
    section_begin: u32,
    section_end: u32,
    call_begin: u32,
    argument_begin: u32,
    call_end: u32,
}

impl Grammars {
    /// Builds the tree: about two seconds for Kimi's vocabulary.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let vocab = u32::try_from(tokenizer.vocab()).unwrap_or(u32::MAX);
        let words: Vec<Vec<u8>> = (0..vocab).map(|id| word(tokenizer, id)).collect();
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > MAX_TABLE_BYTES {
            return Err(Error::Constraint(format!(
                "the tokens of this model have {bytes} bytes together, and formats work with at \
                 most {MAX_TABLE_BYTES}"
            )));
        }
        let stops: Vec<u32> = (0..vocab).filter(|id| tokenizer.is_stop(*id)).collect();
        let Some(eos) = stops.first() else {
            return Err(Error::Constraint(
                "no token of this model ends an answer".to_owned(),
            ));
        };
        let trie = TokTrie::from(&TokRxInfo::new(vocab, *eos), &words).with_eos_tokens(&stops);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(refused)?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            // The words go to a client: what is wrong, not the parser's memory.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory,
            thinking: thinking(tokenizer, vocab),
            call: call_tokens(tokenizer),
        })
    }

    /// A constraint of this format.
    pub(crate) fn constraint(&self, format: &AnswerFormat) -> Result<Constraint, Error> {
        let grammar = match format {
            AnswerFormat::JsonObject => {
                TopLevelGrammar::from_json_schema(with_blanks(json!({"type": "object"})))
            }
            AnswerFormat::JsonSchema(schema) => TopLevelGrammar::from_json_schema(parse(schema)?),
            AnswerFormat::ToolCalls { tools, parallel } => {
                TopLevelGrammar::from_lark(self.call_grammar(tools, *parallel)?)
            }
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(words) = matcher.get_error() {
            return Err(Error::Constraint(words));
        }
        Ok(Constraint {
            matcher,
            thinking: self.thinking.clone(),
            state: State::Fresh,
        })
    }

    /// Kimi's section of tool calls in the grammar language of llguidance.
    fn call_grammar(&self, tools: &[CallableTool], parallel: bool) -> Result<String, Error> {
        let Some(call) = self.call else {
            return Err(Error::Constraint(
                "this model has no tokens for tool calls".to_owned(),
            ));
        };
        let names: Vec<String> = (0..tools.len()).map(|at| format!("tool_{at}")).collect();
        let mut grammar = format!(
            "start: <[{}]> {} <[{}]>\ncall: {}\n",
            call.section_begin,
            if parallel { "call+" } else { "call" },
            call.section_end,
            names.join(" | ")
        );
        for (tool, rule) in tools.iter().zip(names) {
            let legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if tool.name.is_empty() || !tool.name.chars().all(legal) {
                return Err(Error::Constraint(format!(
                    "a tool to be called is named {:?}; use letters, digits, '_', '-' and '.'",
                    tool.name
                )));
            }
            let schema = match &tool.parameters {
                Some(schema) => parse(schema)?,
                None => with_blanks(json!({"type": "object"})),
            };
            grammar += &format!(
                "{rule}: <[{}]> \"functions.{}:\" /[0-9]{{1,6}}/ <[{}]> %json {schema} <[{}]>\n",
                call.call_begin, tool.name, call.argument_begin, call.call_end
            );
        }
        Ok(grammar)
    }
}

/// A token as the table wants it: special ones marked by a byte that no text has.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if bytes.len() > MAX_TOKEN_BYTES {
        Vec::new()
    } else if tokenizer.is_special(id) {
        [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
    } else {
        bytes.to_vec()
    }
}

fn thinking(tokenizer: &Tokenizer, vocab: u32) -> Option<Thinking> {
    let (begin, end) = (
        tokenizer.special("<think>")?,
        tokenizer.special("</think>")?,
    );
    let barred = (0..vocab).filter(|id| tokenizer.is_special(*id) && *id != end);
    Some(Thinking {
        begin,
        end,
        barred: barred.collect(),
    })
}

fn call_tokens(tokenizer: &Tokenizer) -> Option<CallTokens> {
    Some(CallTokens {
        section_begin: tokenizer.special("<|tool_calls_section_begin|>")?,
        section_end: tokenizer.special("<|tool_calls_section_end|>")?,
        call_begin: tokenizer.special("<|tool_call_begin|>")?,
        argument_begin: tokenizer.special("<|tool_call_argument_begin|>")?,
        call_end: tokenizer.special("<|tool_call_end|>")?,
    })
}

fn parse(schema: &str) -> Result<Value, Error> {
    serde_json::from_str(schema)
        .map(with_blanks)
        .map_err(|error| Error::Constraint(format!("the schema is not JSON: {error}")))
}

/// The schema with our blanks in place of any the client chose by the same key.
fn with_blanks(mut schema: Value) -> Value {
    if let Some(keys) = schema.as_object_mut() {
        let options = json!({"whitespace_flexible": true, "whitespace_pattern": BLANKS});
        keys.insert("x-guidance".to_owned(), options);
    }
    schema
}

#[allow(clippy::needless_pass_by_value)]
fn refused(error: impl fmt::Display) -> Error {
    Error::Constraint(error.to_string())
}

/// What one answer must look like, and how far it has come. A model that thinks first does so freely.
pub struct Constraint {
    matcher: Matcher,
    thinking: Option<Thinking>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is generated yet.
    Fresh,
    Thinking,
    /// The format rules.
    Bound,
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            thinking: self.thinking.clone(),
            state: self.state,
        }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// Takes notice of the prompt: it may already have opened a thought.
    pub(crate) fn begin(&mut self, prompt: &[u32]) {
        let opened = self.thinking.as_ref().map(|thinking| thinking.begin);
        if opened.is_some() && opened == prompt.last().copied() {
            self.state = State::Thinking;
        }
    }

    /// Makes every token impossible that may not come next.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        if let (State::Thinking, Some(thinking)) = (self.state, &self.thinking) {
            for id in thinking.barred.iter() {
                bar(logits, *id as usize);
            }
            return Ok(());
        }
        let mut allowed = self.matcher.compute_mask_or_eos().map_err(refused)?;
        // Only a model that would think by itself may: in others' vocabularies the token is too, and
        // where little else is allowed it would come up by chance.
        if let (State::Fresh, Some(thinking)) = (self.state, &self.thinking)
            && likeliest(logits).is_some_and(|(token, _)| token == thinking.begin)
        {
            allowed.allow_token(thinking.begin);
        }
        allowed.iter_unset_entries(|id| bar(logits, id));
        Ok(())
    }

    /// Takes notice of the token chosen; true when nothing may follow it.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, Error> {
        if let (State::Fresh, Some(thinking)) = (self.state, &self.thinking)
            && token == thinking.begin
        {
            self.state = State::Thinking;
            return Ok(false);
        }
        if let (State::Thinking, Some(thinking)) = (self.state, &self.thinking) {
            if token == thinking.end {
                self.state = State::Bound;
            }
            return Ok(false);
        }
        self.state = State::Bound;
        self.matcher.consume_token(token).map_err(refused)?;
        Ok(self.matcher.is_stopped())
    }
}

fn bar(logits: &mut [f32], id: usize) {
    if let Some(logit) = logits.get_mut(id) {
        *logit = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests;
