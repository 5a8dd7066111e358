//! Cuts text into the pieces that BPE never merges across: Kimi's pattern, matched by hand, since a
//! regex engine that can look ahead is an order of magnitude slower. It must not know tokens.
//!
//! The pattern, verbatim from the `tokenization_kimi.py` that Moonshot publishes with the models, one
//! alternative a line, is `PATTERN` in the tests, which compare every piece with it.

mod classes;

use self::classes::{Classes, DIGIT, HAN, LETTER, LOWER, NEWLINE, SPACE, UPPER};
use crate::Error;

pub(super) struct Splitter {
    classes: &'static Classes,
}

impl Splitter {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            classes: Classes::shared()?,
        })
    }

    /// Pieces whose concatenation is `text`.
    pub(super) fn pieces<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (piece, after) = rest.split_at(self.piece(rest));
            rest = after;
            Some(piece)
        })
    }

    /// Bytes of the first piece; never 0. The alternatives of the pattern in their order.
    fn piece(&self, text: &str) -> usize {
        let (first, len) = self.at(text, 0);
        if first & HAN != 0 {
            return self.run(text, len, |class| class & HAN != 0);
        }
        if let Some(end) = self.word(text, first, len) {
            return end;
        }
        if first & DIGIT != 0 {
            return self.digits(text, len);
        }
        if let Some(end) = self.symbols(text, first, len) {
            return end;
        }
        if first & SPACE != 0 {
            return self.blanks(text);
        }
        len
    }

    /// Class of the character at `at` and its length; nothing at the end.
    fn at(&self, text: &str, at: usize) -> (u8, usize) {
        match text[at..].chars().next() {
            Some(c) => (self.classes.of(c), c.len_utf8()),
            None => (0, 0),
        }
    }

    /// End of the run from `at` on.
    fn run(&self, text: &str, mut at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        loop {
            let (class, len) = self.at(text, at);
            if len == 0 || !belongs(class) {
                return at;
            }
            at += len;
        }
    }

    /// `prefix? UPPER* LOWER+ contraction?`, or else `prefix? UPPER+ LOWER* contraction?`. Letters
    /// without case and marks are both upper and lower.
    fn word(&self, text: &str, first: u8, len: usize) -> Option<usize> {
        let is_prefix = first & (NEWLINE | LETTER | DIGIT) == 0;
        // With the prefix first; a mark can be a prefix, and if that does not work out, a letter.
        let starts = [is_prefix.then_some(len), Some(0)];
        let starts = || starts.iter().flatten().copied();
        let end = starts()
            .find_map(|start| self.ends_lower(text, start))
            .or_else(|| {
                // No lower letter follows any of these.
                starts().find_map(|start| {
                    let end = self.run(text, start, |class| class & UPPER != 0);
                    (end > start).then_some(end)
                })
            })?;
        Some(end + contraction(&text[end..]))
    }

    /// End of `UPPER* LOWER+` from `start` on, upper letters taking all they can.
    fn ends_lower(&self, text: &str, start: usize) -> Option<usize> {
        let mut at = start;
        let mut last_lower = None;
        loop {
            let (class, len) = self.at(text, at);
            if class & UPPER == 0 {
                // All the lower letters there are, or the last of those already passed.
                return if class & LOWER != 0 {
                    Some(self.run(text, at + len, |class| class & LOWER != 0))
                } else {
                    last_lower
                };
            }
            at += len;
            if class & LOWER != 0 {
                last_lower = Some(at);
            }
        }
    }

    /// Three at most; the first is `len` long.
    fn digits(&self, text: &str, len: usize) -> usize {
        let mut end = len;
        for _ in 0..2 {
            let (class, len) = self.at(text, end);
            if class & DIGIT == 0 {
                break;
            }
            end += len;
        }
        end
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    fn symbols(&self, text: &str, first: u8, len: usize) -> Option<usize> {
        let is_symbol = |class: u8| class & (SPACE | LETTER | DIGIT) == 0;
        let start = if text.starts_with(' ') {
            match self.at(text, len) {
                (class, next) if next > 0 && is_symbol(class) => len,
                _ => return None,
            }
        } else if is_symbol(first) {
            0
        } else {
            return None;
        };
        let end = self.run(text, start, is_symbol);
        Some(self.run(text, end, |class| class & NEWLINE != 0))
    }

    /// `\s*[\r\n]+`, or else `\s+(?!\S)`, or else `\s+`.
    fn blanks(&self, text: &str) -> usize {
        let (mut end, mut last) = (0, 0);
        let mut after_newline = None;
        loop {
            let (class, len) = self.at(text, end);
            if class & SPACE == 0 {
                break;
            }
            (end, last) = (end + len, end);
            if class & NEWLINE != 0 {
                after_newline = Some(end);
            }
        }
        match after_newline {
            Some(end) => end,
            // The last blank belongs to what follows, unless it is the only one.
            None if end < text.len() && last > 0 => last,
            None => end,
        }
    }
}

/// Length of an English contraction at the beginning of `text`. Case does not matter, and the long s
/// is an s in another case.
fn contraction(text: &str) -> usize {
    let Some(rest) = text.strip_prefix('\'') else {
        return 0;
    };
    let mut letters = rest.chars();
    let (first, second) = (letters.next(), letters.next());
    match (
        first.map(|c| c.to_ascii_lowercase()),
        second.map(|c| c.to_ascii_lowercase()),
    ) {
        (Some('ſ'), _) => 1 + 'ſ'.len_utf8(),
        (Some('s' | 't' | 'm' | 'd'), _) => 2,
        (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => 3,
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
