//! Text to token ids and back: Kimi's splitter, byte-level BPE by merges, special tokens by name.
//! It must not know the forward pass, and nowhere a literal token id: files place the special tokens
//! where they like.

mod bpe;
pub(crate) mod metadata;
mod split;
mod stream;

use std::{collections::HashMap, fmt};

use foldhash::fast::RandomState;

pub use stream::StreamDecoder;

use self::{bpe::Merges, split::Splitter};
use crate::Error;

/// Tokens that end an answer wherever they occur, by the names Kimi's files give them.
const STOP_NAMES: [&str; 3] = ["[EOS]", "<|im_end|>", "[EOT]"];

/// Most tokens a vocabulary may have; Kimi's have 163,840.
const MAX_TOKENS: usize = 1 << 20;

/// A vocabulary as a file gives it. Index in `tokens` = token id.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Ordinary tokens in GPT-2's printable alphabet for bytes, special tokens as they are.
    pub tokens: Vec<String>,
    /// Whether a token is special, that is, never comes out of ordinary text.
    pub special: Vec<bool>,
    /// `left right` pairs in order of priority, in the same alphabet.
    pub merges: Vec<String>,
    /// Begin-of-text token.
    pub bos: Option<u32>,
    /// End-of-text token.
    pub eos: Option<u32>,
    /// Further tokens that end an answer.
    pub stops: Vec<u32>,
    /// Whether a text by itself is to be started with `bos`.
    pub add_bos: bool,
}

impl Vocabulary {
    /// The smallest vocabulary there is: the 256 bytes (ids 0..256), then these special tokens.
    pub fn bytes(special: &[&str]) -> Self {
        let mut tokens: Vec<String> = (0..=u8::MAX)
            .map(|byte| bpe::byte_to_char(byte).to_string())
            .collect();
        tokens.extend(special.iter().map(|name| (*name).to_owned()));
        let special = (0..tokens.len()).map(|id| id >= 256).collect();
        Self {
            tokens,
            special,
            ..Self::default()
        }
    }
}

/// Tokens by their bytes.
type ByBytes = HashMap<Box<[u8]>, u32, RandomState>;

/// Encodes and decodes; shared by all requests.
pub struct Tokenizer {
    /// Bytes of each token; for special tokens, the bytes of the name.
    bytes: Vec<Box<[u8]>>,
    special: Vec<bool>,
    /// Special tokens by name.
    names: HashMap<String, u32>,
    /// Special names by their first byte, longest first.
    by_first_byte: HashMap<u8, Vec<(String, u32)>>,
    /// Ordinary tokens by their bytes.
    ordinary: ByBytes,
    merges: Merges,
    splitter: Splitter,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    add_bos: bool,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds the tables.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] naming the first entry that makes no sense.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, Error> {
        let Vocabulary {
            tokens,
            special,
            merges,
            bos,
            eos,
            mut stops,
            add_bos,
        } = vocabulary;
        if tokens.is_empty() || tokens.len() > MAX_TOKENS {
            return Err(Error::Tokenizer(format!(
                "{} tokens; expected 1 to {MAX_TOKENS}",
                tokens.len()
            )));
        }
        if special.len() != tokens.len() {
            return Err(Error::Tokenizer(format!(
                "{} tokens but {} token types",
                tokens.len(),
                special.len()
            )));
        }
        for (what, id) in [("bos", bos), ("eos", eos)] {
            if let Some(id) = id.filter(|id| *id as usize >= tokens.len()) {
                return Err(Error::Tokenizer(format!(
                    "{what} token id {id}, but there are only {} tokens",
                    tokens.len()
                )));
            }
        }

        let mut bytes = Vec::with_capacity(tokens.len());
        let mut names = HashMap::new();
        let mut by_first_byte: HashMap<u8, Vec<(String, u32)>> = HashMap::new();
        let mut ordinary = ByBytes::with_capacity_and_hasher(tokens.len(), RandomState::default());
        for (id, (token, special)) in (0u32..).zip(tokens.iter().zip(&special)) {
            if *special {
                bytes.push(token.as_bytes().into());
                names.entry(token.clone()).or_insert(id);
                if let Some(first) = token.bytes().next() {
                    by_first_byte
                        .entry(first)
                        .or_default()
                        .push((token.clone(), id));
                }
            } else {
                let decoded = bpe::chars_to_bytes(token);
                ordinary.entry(decoded.clone()).or_insert(id);
                bytes.push(decoded);
            }
        }
        for candidates in by_first_byte.values_mut() {
            candidates.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        }
        stops.extend(eos);
        stops.extend(STOP_NAMES.iter().filter_map(|name| names.get(*name)));
        stops.sort_unstable();
        stops.dedup();

        let merges = Merges::new(&merges, &ordinary)?;
        let splitter = Splitter::new()?;
        Ok(Self {
            bytes,
            special,
            names,
            by_first_byte,
            ordinary,
            merges,
            splitter,
            bos,
            eos,
            stops,
            add_bos,
        })
    }

    /// Tokens of user text. Never a special token, whatever the text says.
    pub fn encode_ordinary(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        for piece in self.splitter.pieces(text) {
            match self.ordinary.get(piece.as_bytes()) {
                Some(id) => ids.push(*id),
                None => self.merges.encode(piece.as_bytes(), &mut ids),
            }
        }
        ids
    }

    /// Tokens of a trusted text in which the names of special tokens stand for them.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.for_each_special(text, |piece, id| {
            ids.extend(self.encode_ordinary(piece));
            ids.extend(id);
        });
        ids
    }

    /// Walks over `text`, giving each stretch of ordinary text with the special token after it.
    pub(crate) fn for_each_special<'t>(
        &self,
        text: &'t str,
        mut visit: impl FnMut(&'t str, Option<u32>),
    ) {
        let mut start = 0;
        let mut at = 0;
        while at < text.len() {
            // A special name starts at a character boundary, as `text` itself is valid UTF-8.
            let found = self
                .by_first_byte
                .get(&text.as_bytes()[at])
                .and_then(|candidates| {
                    candidates
                        .iter()
                        .find(|(name, _)| text.as_bytes()[at..].starts_with(name.as_bytes()))
                });
            match found {
                Some((name, id)) => {
                    visit(&text[start..at], Some(*id));
                    at += name.len();
                    start = at;
                }
                None => at += 1,
            }
        }
        if start < text.len() {
            visit(&text[start..], None);
        }
    }

    /// Names of the special tokens that begin with this byte, longest first.
    pub(crate) fn special_names(&self, first: u8) -> impl Iterator<Item = &str> {
        self.by_first_byte
            .get(&first)
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
    }

    /// The prompt for a text by itself: `bos` first where the file asks for it.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        let bos = self.bos.filter(|_| self.add_bos);
        bos.into_iter().chain(self.encode_ordinary(text)).collect()
    }

    /// Text of tokens; special tokens appear by name, broken UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| self.token_bytes(*id))
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of one token, not always whole characters; empty for an id beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Whether the token is special.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether the token ends an answer.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.binary_search(&id).is_ok()
    }

    /// The special token of this name: `<|im_end|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text by itself starts with `bos`.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
