//! Tokens of an answer to text that may be sent: whole characters, and nothing that could still turn
//! out to be a stop string. It must not know requests or channels.

use crate::{Tokenizer, tokenizer::StreamDecoder};

/// Text of one answer under way.
#[derive(Debug)]
pub(crate) struct Answer {
    stops: Vec<String>,
    decoder: StreamDecoder,
    /// Text held back because a stop string may begin in it.
    held: String,
    last: u32,
}

/// What one more token makes sendable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// (token, text), in order.
    pub(crate) pieces: Vec<(u32, String)>,
    /// Whether a stop string ended the answer.
    pub(crate) stopped: bool,
}

impl Answer {
    /// Empty stop strings are ignored.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            decoder: StreamDecoder::default(),
            held: String::new(),
            last: 0,
        }
    }

    /// Adds a token.
    pub(crate) fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Step {
        let bytes = tokenizer.token_bytes(id);
        if tokenizer.is_special(id) {
            return self.push_special(id, bytes);
        }
        self.last = id;
        let text = self.decoder.push(bytes);
        self.held.push_str(&text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            let text = std::mem::take(&mut self.held);
            return Step {
                pieces: vec![(id, text)],
                stopped: true,
            };
        }
        let text = self.held.drain(..self.sendable()).collect();
        Step {
            pieces: vec![(id, text)],
            stopped: false,
        }
    }

    /// A special token ends whatever text came before it.
    fn push_special(&mut self, id: u32, name: &[u8]) -> Step {
        let mut pieces = self.finish();
        self.last = id;
        let name = String::from_utf8_lossy(name).into_owned();
        let stopped = self.stops.contains(&name);
        if !stopped {
            pieces.push((id, name));
        }
        Step { pieces, stopped }
    }

    /// What was held back to the end.
    pub(crate) fn finish(&mut self) -> Vec<(u32, String)> {
        self.held.push_str(&self.decoder.finish());
        let text = std::mem::take(&mut self.held);
        if text.is_empty() {
            Vec::new()
        } else {
            vec![(self.last, text)]
        }
    }

    /// Bytes before the first place from which the rest might grow into a stop string.
    fn sendable(&self) -> usize {
        let begins = |at: usize| {
            self.stops
                .iter()
                .any(|stop| stop.starts_with(&self.held[at..]))
        };
        self.held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| begins(*at))
            .unwrap_or(self.held.len())
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
            let step = answer.push(id, &tokenizer);
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
            .map(|(_, text)| text.as_str())
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
        check(&["END"], "xENy", &["x", "ENy"], false);
        check(&["END"], "xEN", &["x", "EN"], false);
        check(&["aab"], "aaab", &["a"], true);
        check(&["", "cd", "bc"], "abcd", &["a"], true);
        check(&["好"], "你好", &["你"], true);
    }

    #[test]
    fn special_tokens_come_alone() {
        check(&["END"], "EN<|call|>D", &["EN", "<|call|>", "D"], false);
        check(&["<|call|>"], "a<|call|>b", &["a"], true);
    }
}
