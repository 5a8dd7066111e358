//! The splitter against the pattern, by a regex engine.

use fancy_regex::Regex;
use proptest::prelude::*;

use super::*;

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

fn by_pattern<'t>(pattern: &Regex, text: &'t str) -> Vec<&'t str> {
    let pieces: Vec<&str> = pattern
        .find_iter(text)
        .map(|found| found.unwrap().as_str())
        .collect();
    assert_eq!(pieces.concat(), text);
    pieces
}

/// One or more of every class, of every length in UTF-8, and the characters with rules of their own.
const CHARACTERS: &str = "aezAEZ ſßŁłǅʰªأकमहิสวัดी\u{301}\u{93f}\u{20dd}\u{1d165}𝒜𝓪𐐀𐐨中好〇々⺀𠀀𪜀ー한가あ\
0٣९½Ⅷ²𝟘 \t\r\n\u{a0}\u{85}\u{2028}\u{3000}'’.,!<|>-_\"`#𝄞🙂👩\u{200d}\u{fe0f}\u{fdd0}\u{0}\u{ad}\
sStTrReEvVmMlLdDK";

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pieces_are_the_pattern_s(
        picks in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(CHARACTERS.chars().collect::<Vec<_>>()).prop_map(String::from),
            1 => any::<char>().prop_map(String::from),
            1 => prop::sample::select(vec!["'re", "'LL", "\r\n", "   ", "\n\n ", "ABc", "12345", "हिन्दी"]).prop_map(String::from),
        ], 0..40)
    ) {
        thread_local!(static BOTH: (Regex, Splitter) =
            (Regex::new(PATTERN).unwrap(), Splitter::new().unwrap()));
        let text = picks.concat();
        BOTH.with(|(pattern, splitter)| {
            let pieces: Vec<&str> = splitter.pieces(&text).collect();
            prop_assert_eq!(pieces, by_pattern(pattern, &text));
            Ok(())
        })?;
    }
}

#[test]
fn every_character_falls_in_the_pattern_s_classes() {
    let pattern = Regex::new(PATTERN).unwrap();
    let splitter = Splitter::new().unwrap();
    // Each character alone, before a letter, after one, and between blanks.
    for c in (0..=char::MAX as u32)
        .filter_map(char::from_u32)
        .step_by(61)
    {
        let text = format!("{c}a{c}  {c}1{c}{c}A{c}'s{c}\n");
        let pieces: Vec<&str> = splitter.pieces(&text).collect();
        assert_eq!(pieces, by_pattern(&pattern, &text), "{c:?}");
    }
}

fn check(text: &str, expected: &[&str]) {
    let splitter = Splitter::new().unwrap();
    let pieces: Vec<&str> = splitter.pieces(text).collect();
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
    let splitter = Splitter::new().unwrap();
    let spaces = " ".repeat(300_000);
    assert_eq!(splitter.pieces(&spaces).count(), 1);
    let letters = "A".repeat(300_000);
    assert_eq!(splitter.pieces(&letters).count(), 1);
}
