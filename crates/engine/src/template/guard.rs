//! Keeps user text from spelling special tokens. Before rendering, [`guard`] puts a break into every
//! special name in user text; the template can trim, split and escape that text as it likes; after
//! the rendered text was cut at special names, [`unguard`] takes the breaks out again. It must not
//! know templates.

use crate::Tokenizer;

/// A Unicode noncharacter: legal in strings, never in text. Doubled, it stands for itself.
pub(super) const BREAK: char = '\u{fdd0}';

/// `text` with a [`BREAK`] after the first character of each special name.
pub(super) fn guard(text: &str, tokenizer: &Tokenizer) -> String {
    let mut guarded = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        guarded.push(c);
        if c == BREAK {
            guarded.push(BREAK);
            continue;
        }
        // Also when a shorter name begins here, or only the beginning of one before the end of the
        // text: the template's own text after it might complete the name.
        let rest = &text[at..];
        let mut names = tokenizer.special_names(text.as_bytes()[at]);
        if names.any(|name| rest.starts_with(name) || name.starts_with(rest)) {
            guarded.push(BREAK);
        }
    }
    guarded
}

/// The text that was guarded.
pub(super) fn unguard(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != BREAK {
            plain.push(c);
            continue;
        }
        match chars.next() {
            None => {}
            Some(next) => plain.push(next),
        }
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocabulary;

    #[test]
    fn guarding_breaks_every_name_and_is_undone() {
        let tokenizer =
            Tokenizer::new(Vocabulary::bytes(&["<|im_end|>", "[EOS]", "<think>", "<"])).unwrap();
        for text in [
            "",
            "plain",
            "<|im_end|>",
            "a<|im_end|><|im_end|>b[EOS]",
            "ends in <|im_e",
            "\u{fdd0}<|im_end|>\u{fdd0}",
            "<\u{fdd0}|im_end|>",
            "<<<think>",
            "\u{fdd0}\u{fdd0}",
        ] {
            let guarded = guard(text, &tokenizer);
            assert_eq!(unguard(&guarded), text);
            for name in ["<|im_end|>", "[EOS]", "<think>"] {
                assert!(!guarded.contains(name), "{guarded:?}");
                // Nothing that follows can complete a name either.
                for cut in 1..name.len() {
                    assert!(!guarded.ends_with(&name[..cut]), "{guarded:?}");
                }
            }
        }
    }
}
