//! Tokens of an answer to text that may be sent: whole characters, and nothing that could still turn
//! out to be a stop string. It must not know requests or channels.

use std::collections::VecDeque;

use crate::{Logprobs, Tokenizer, tokenizer::StreamDecoder};

/// Text of one answer under way.
#[derive(Debug)]
pub(crate) struct Answer {
    stops: Vec<String>,
    decoder: StreamDecoder,
    /// Tokens held back because a stop string may begin in them.
    held: VecDeque<Piece>,
    last: u32,
}

/// One token of the answer and the characters it completes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) logprobs: Option<Logprobs>,
}

/// What one more token makes sendable.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    /// In order, each token once.
    pub(crate) pieces: Vec<Piece>,
    /// Whether a stop string ended the answer.
    pub(crate) stopped: bool,
}

impl Answer {
    /// Empty stop strings are ignored.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            decoder: StreamDecoder::default(),
            held: VecDeque::new(),
            last: 0,
        }
    }

    /// Adds a token.
    pub(crate) fn push(
        &mut self,
        id: u32,
        logprobs: Option<Logprobs>,
        tokenizer: &Tokenizer,
    ) -> Step {
        let bytes = tokenizer.token_bytes(id);
        if tokenizer.is_special(id) {
            return self.push_special(id, bytes, logprobs);
        }
        self.last = id;
        let text = self.decoder.push(bytes);
        self.held.push_back(Piece { id, text, logprobs });
        if self.stops.is_empty() {
            return Step {
                pieces: self.held.drain(..).collect(),
                stopped: false,
            };
        }
        let held: String = self.held.iter().map(|piece| piece.text.as_str()).collect();
        let found = self
            .stops
            .iter()
            .filter_map(|stop| held.find(stop.as_str()))
            .min();
        match found {
            Some(at) => Step {
                pieces: self.cut(at),
                stopped: true,
            },
            None => Step {
                pieces: self.release(self.sendable(&held)),
                stopped: false,
            },
        }
    }

    /// A special token ends whatever text came before it.
    fn push_special(&mut self, id: u32, name: &[u8], logprobs: Option<Logprobs>) -> Step {
        let mut pieces = self.finish();
        self.last = id;
        let text = String::from_utf8_lossy(name).into_owned();
        let stopped = self.stops.contains(&text);
        if !stopped {
            pieces.push(Piece { id, text, logprobs });
        }
        Step { pieces, stopped }
    }

    /// What was held back to the end. An unfinished character comes with the id of its last token
    /// once more.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let text = self.decoder.finish();
        let mut pieces: Vec<Piece> = self.held.drain(..).collect();
        match pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(last) => last.text.push_str(&text),
            None => pieces.push(Piece {
                id: self.last,
                text,
                logprobs: None,
            }),
        }
        pieces
    }

    /// Tokens that lie whole within the first `bytes` of what is held.
    fn release(&mut self, bytes: usize) -> Vec<Piece> {
        let mut left = bytes;
        let mut released = Vec::new();
        while let Some(piece) = self.held.pop_front_if(|piece| piece.text.len() <= left) {
            left -= piece.text.len();
            released.push(piece);
        }
        released
    }

    /// The first `bytes` of what is held, the last token cut short; the rest is dropped.
    fn cut(&mut self, bytes: usize) -> Vec<Piece> {
        let mut left = bytes;
        let mut kept = Vec::new();
        for mut piece in self.held.drain(..) {
            if left == 0 {
                break;
            }
            piece.text.truncate(left);
            left -= piece.text.len();
            kept.push(piece);
        }
        kept
    }

    /// Bytes before the first place from which the rest might grow into a stop string.
    fn sendable(&self, held: &str) -> usize {
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&held[at..]));
        held.char_indices()
            .map(|(at, _)| at)
            .find(|at| begins(*at))
            .unwrap_or(held.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocabulary;

    /// Pushes bytes as tokens; returns the pieces' texts and whether it stopped.
    fn check(stops: &[&str], text: &str, expected: &[&str], stopped: bool) {
        let tokenizer = Tokenizer::new(Vocabulary::bytes(&["<|call|>"])).unwrap();
        let mut answer = Answer::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut pieces = Vec::new();
        let mut ended = false;
        for id in tokenizer.encode_with_special(text) {
            let step = answer.push(id, None, &tokenizer);
            pieces.extend(step.pieces);
            if step.stopped {
                ended = true;
                break;
            }
        }
        if !ended {
            pieces.extend(answer.finish());
        }
        let texts: Vec<&str> = pieces
            .iter()
            .map(|piece| piece.text.as_str())
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(
            (texts.as_slice(), ended),
            (expected, stopped),
            "{text:?} {stops:?}"
        );
    }

    #[test]
    fn text_is_cut_before_a_stop_string() {
        check(&[], "ab", &["a", "b"], false);
        check(&["b"], "abc", &["a"], true);
        check(&["END"], "xENDy", &["x"], true);
        check(&["END"], "xENy", &["x", "E", "N", "y"], false);
        check(&["END"], "xEN", &["x", "E", "N"], false);
        check(&["aab"], "aaab", &["a"], true);
        check(&["", "cd", "bc"], "abcd", &["a"], true);
        check(&["好"], "你好", &["你"], true);
    }

    #[test]
    fn a_stop_string_may_cut_a_token() {
        let mut vocabulary = Vocabulary::bytes(&[]);
        vocabulary.tokens.push("xEN".to_owned());
        vocabulary.special.push(false);
        let tokenizer = Tokenizer::new(vocabulary).unwrap();
        let mut answer = Answer::new(vec!["END".to_owned()]);
        let held = answer.push(256, None, &tokenizer);
        assert_eq!((held.pieces, held.stopped), (vec![], false));
        let cut = answer.push(u32::from(b'D'), None, &tokenizer);
        let piece = Piece {
            id: 256,
            text: "x".to_owned(),
            logprobs: None,
        };
        assert_eq!((cut.pieces, cut.stopped), (vec![piece], true));
    }

    #[test]
    fn special_tokens_come_alone() {
        check(&["END"], "EN<|call|>D", &["E", "N", "<|call|>", "D"], false);
        check(&["<|call|>"], "a<|call|>b", &["a"], true);
    }
}
