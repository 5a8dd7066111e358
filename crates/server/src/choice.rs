//! One choice of an answer on its way to a client: puts the echoed prompt before the tokens, takes a
//! chat message apart, and says of each token how likely it was. It must not know JSON or streams.

use std::mem;

use engine::{Handle, Logprobs, Turn, TurnParser, tokenizer::StreamDecoder};

use crate::generate::{Finish, Output};

/// A prompt to be repeated before the answer.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    pub(crate) tokens: Vec<u32>,
    /// What the client sent, or what its tokens spell.
    pub(crate) text: String,
    /// Tokens at the beginning that are not part of the text.
    pub(crate) unspoken: usize,
}

/// What has become of a choice.
#[derive(Debug)]
pub(crate) struct Choice {
    engine: Handle,
    has_logprobs: bool,
    echo: Option<Echo>,
    /// For chat; text stays as it is.
    parser: Option<TurnParser>,
    /// Calls of tools begun so far.
    calls: usize,
    /// Of the prompt's tokens from the second one on.
    scored: Vec<Logprobs>,
    /// Characters of text so far.
    characters: usize,
}

/// A piece of a choice, in order; the last one says how it ended.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) said: Option<engine::Part>,
    /// Calls of tools begun so far.
    pub(crate) calls: usize,
    /// The tokens of the text, where asked for.
    pub(crate) entries: Vec<Entry>,
    pub(crate) finish: Option<Finish>,
}

/// A choice put together from its parts.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) turn: Turn,
    pub(crate) entries: Vec<Entry>,
    pub(crate) finish: Option<Finish>,
    pub(crate) has_logprobs: bool,
}

impl Whole {
    pub(crate) fn add(&mut self, part: Part) {
        self.turn.extend(part.said);
        self.entries.extend(part.entries);
        self.finish = part.finish.or(self.finish.take());
    }
}

/// One token with its likelihood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) token: Named,
    /// `None` for the first token of a prompt, which nothing predicts.
    pub(crate) logprob: Option<f32>,
    /// The likeliest tokens in its place, likeliest first.
    pub(crate) top: Vec<(Named, f32)>,
    /// Characters of text before it.
    pub(crate) offset: usize,
    /// Whether it is the end of the answer and no part of its text.
    pub(crate) is_end: bool,
}

/// A token as bytes, special ones by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) Vec<u8>);

impl Choice {
    pub(crate) fn new(engine: Handle, has_logprobs: bool, echo: Option<Echo>) -> Self {
        Self {
            engine,
            has_logprobs,
            echo,
            parser: None,
            calls: 0,
            scored: Vec::new(),
            characters: 0,
        }
    }

    /// The same for a chat message.
    pub(crate) fn parsed(self, parser: TurnParser) -> Self {
        Self {
            parser: Some(parser),
            ..self
        }
    }

    /// Whether tokens are reported with their likelihood.
    pub(crate) fn has_logprobs(&self) -> bool {
        self.has_logprobs
    }

    /// What an output means for the client. Failures are not for here.
    pub(crate) fn feed(&mut self, output: Output) -> Vec<Part> {
        let mut parts = Vec::new();
        match output {
            Output::Prompt(scored) => self.scored.extend(scored),
            Output::Token(token) => {
                parts.extend(self.prompt());
                let entries = token
                    .logprobs
                    .map(|found| self.entry(token.id, Some(found)))
                    .into_iter()
                    .collect();
                self.characters += token.text.chars().count();
                let said = match &mut self.parser {
                    Some(parser) => parser.push(token.id, &token.text),
                    None if token.text.is_empty() => None,
                    None => Some(engine::Part::Content(token.text)),
                };
                let part = self.part(said, entries, None);
                parts.extend((!part.is_empty()).then_some(part));
            }
            Output::Done(mut finish) => {
                parts.extend(self.prompt());
                let end = finish.end.take().map(|(id, found)| Entry {
                    is_end: true,
                    ..self.entry(id, Some(found))
                });
                if let Some(rest) = self.parser.as_mut().and_then(TurnParser::finish) {
                    parts.push(self.part(Some(rest), Vec::new(), None));
                }
                parts.push(self.part(None, end.into_iter().collect(), Some(finish)));
            }
            Output::Failed(_) => {}
        }
        parts
    }

    /// The echo, before anything else of the choice.
    fn prompt(&mut self) -> Option<Part> {
        let Echo {
            tokens,
            text,
            unspoken,
        } = self.echo.take()?;
        let mut entries = Vec::new();
        if self.has_logprobs {
            let mut scored = mem::take(&mut self.scored).into_iter();
            let mut decoder = StreamDecoder::default();
            for (at, id) in tokens.into_iter().enumerate() {
                let found = if at == 0 { None } else { scored.next() };
                entries.push(self.entry(id, found));
                if at >= unspoken {
                    let bytes = self.engine.tokenizer().token_bytes(id);
                    self.characters += decoder.push(bytes).chars().count();
                }
            }
        }
        self.characters = text.chars().count();
        Some(self.part(Some(engine::Part::Content(text)), entries, None))
    }

    fn part(
        &mut self,
        said: Option<engine::Part>,
        entries: Vec<Entry>,
        finish: Option<Finish>,
    ) -> Part {
        self.calls += usize::from(matches!(said, Some(engine::Part::Call { .. })));
        Part {
            said,
            calls: self.calls,
            entries,
            finish,
        }
    }

    fn entry(&self, id: u32, found: Option<Logprobs>) -> Entry {
        let name = |id: u32| Named(self.engine.tokenizer().token_bytes(id).to_vec());
        let (logprob, top) = match found {
            Some(found) => (Some(found.logprob), found.top),
            None => (None, Vec::new()),
        };
        Entry {
            token: name(id),
            logprob,
            top: top.into_iter().map(|(id, p)| (name(id), p)).collect(),
            offset: self.characters,
            is_end: false,
        }
    }
}

impl Part {
    fn is_empty(&self) -> bool {
        self.said.is_none() && self.entries.is_empty() && self.finish.is_none()
    }
}
