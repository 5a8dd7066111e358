//! Cuts text into the pieces that BPE never merges across. It must not know tokens.

use fancy_regex::{Regex, RegexBuilder};

use crate::Error;

/// Kimi's pattern, verbatim from the `tokenization_kimi.py` that Moonshot publishes with the models,
/// where its parts are joined by `|`.
const PATTERN: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

pub(super) struct Splitter {
    pattern: Regex,
}

impl Splitter {
    pub(super) fn new() -> Result<Self, Error> {
        // The pattern backtracks at most once per character of a run, and every run is consumed, so
        // the work is linear and the engine's default limit would only hit long texts.
        let pattern = RegexBuilder::new(PATTERN)
            .backtrack_limit(usize::MAX)
            .build()
            .map_err(|error| Error::Tokenizer(format!("the splitter does not compile: {error}")))?;
        Ok(Self { pattern })
    }

    /// Pieces whose concatenation is `text`.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut pieces = Vec::new();
        let mut end = 0;
        // An error of the regex engine ends the walk; the text after it is then one piece, which
        // costs compactness but loses nothing.
        for found in self.pattern.find_iter(text).map_while(Result::ok) {
            if found.start() > end {
                pieces.push(&text[end..found.start()]);
            }
            pieces.push(found.as_str());
            end = found.end();
        }
        if end < text.len() {
            pieces.push(&text[end..]);
        }
        pieces
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let pieces = Splitter::new().unwrap().pieces(text);
        assert_eq!(pieces, expected);
        assert_eq!(pieces.concat(), text);
    }

    #[test]
    fn words_keep_one_leading_space_and_contractions() {
        check(
            "I'm sure they'll say Don'T",
            &["I'm", " sure", " they'll", " say", " Don'T"],
        );
    }

    #[test]
    fn numbers_go_by_three() {
        check("12345 67", &["123", "45", " ", "67"]);
    }

    #[test]
    fn camel_case_is_cut_before_the_hump() {
        check("camelCaseHTTPServer", &["camel", "Case", "HTTPServer"]);
    }

    #[test]
    fn marks_stay_with_their_letters() {
        check("हिन्दी", &["हिन्दी"]);
        check("สวัสดี", &["สวัสดี"]);
        check("e\u{301}te\u{301}", &["e\u{301}te\u{301}"]);
    }

    #[test]
    fn han_stands_apart_from_latin() {
        check("你好world", &["你好", "world"]);
    }

    #[test]
    fn blanks_leave_one_for_the_next_word() {
        check("a   b \n\n c  ", &["a", "  ", " b", " \n\n", " c", "  "]);
    }

    #[test]
    fn punctuation_takes_the_newlines_after_it() {
        check("end.\n\nNext", &["end", ".\n\n", "Next"]);
    }

    #[test]
    fn a_long_run_is_quick() {
        let spaces = " ".repeat(300_000);
        assert_eq!(Splitter::new().unwrap().pieces(&spaces).len(), 1);
        let letters = "A".repeat(300_000);
        assert_eq!(Splitter::new().unwrap().pieces(&letters).len(), 1);
    }
}
