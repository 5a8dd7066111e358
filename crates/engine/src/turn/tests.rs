//! Turns as models write them, sound and unsound.

use proptest::prelude::*;

use super::*;
use crate::tokenizer::Vocabulary;

fn tokenizer() -> Tokenizer {
    let names: Vec<&str> = MARKS.iter().map(|(name, _)| *name).collect();
    Tokenizer::new(Vocabulary::bytes(&names)).unwrap()
}

/// Short names for the marks, so that a turn fits a line.
fn spelled(turn: &str) -> String {
    [
        ("⟪", "<|tool_calls_section_begin|>"),
        ("⟫", "<|tool_calls_section_end|>"),
        ("⟨", "<|tool_call_begin|>"),
        ("→", "<|tool_call_argument_begin|>"),
        ("⟩", "<|tool_call_end|>"),
    ]
    .iter()
    .fold(turn.to_owned(), |turn, (short, name)| {
        turn.replace(short, name)
    })
}

/// Parses byte by byte, as the smallest vocabulary would have it.
fn parse(turn: &str, parser: &mut TurnParser) -> Turn {
    let tokenizer = tokenizer();
    let mut whole = Turn::default();
    for id in tokenizer.encode_with_special(&spelled(turn)) {
        let text = tokenizer.decode(&[id]);
        whole.extend(parser.push(id, &text));
    }
    whole.extend(parser.finish());
    whole
}

fn check(turn: &str, reasoning: &str, content: &str, calls: &[(&str, &str, &str)]) {
    let mut parser = TurnParser::new(&tokenizer(), &[], &[]);
    let whole = parse(turn, &mut parser);
    let found: Vec<(&str, &str, &str)> = whole
        .calls
        .iter()
        .map(|call| {
            (
                call.id.as_str(),
                call.name.as_str(),
                call.arguments.as_str(),
            )
        })
        .collect();
    assert_eq!(
        (whole.reasoning.as_str(), whole.content.as_str(), &found[..]),
        (reasoning, content, calls),
        "{turn}"
    );
}

#[test]
fn sound_turns() {
    check("hello", "", "hello", &[]);
    check("<think>a b</think>c", "a b", "c", &[]);
    check("<think></think>c", "", "c", &[]);
    let f = ("functions.f:0", "f", "{\"a\":1}");
    check("⟪⟨functions.f:0→{\"a\":1}⟩⟫", "", "", &[f]);
    check(
        "<think>t</think>Let me.⟪⟨functions.f:0→{\"a\":1}⟩⟫",
        "t",
        "Let me.",
        &[f],
    );
    let g = ("functions.g:1", "g", "{}");
    check(
        "⟪⟨functions.f:0→{\"a\":1}⟩⟨functions.g:1→{}⟩⟫",
        "",
        "",
        &[f, g],
    );
}

#[test]
fn unsound_turns() {
    let f = ("functions.f:0", "f", "{}");
    // The end of the thoughts is missing.
    check("<think>t⟪⟨functions.f:0→{}⟩⟫", "t", "", &[f]);
    check("<think>t⟨functions.f:0→{}⟩", "t", "", &[f]);
    // Thoughts begin twice, or end without having begun.
    check("<think>a<think>b</think>c</think>d", "ab", "cd", &[]);
    // Marks are missing, doubled or out of place.
    check("⟪⟪⟨functions.f:0→{}⟫ok", "", "ok", &[f]);
    check("⟪⟨functions.f:0→{}⟩\n ⟩⟫⟫ok", "", "ok", &[f]);
    check(
        "⟪⟨functions.f:0→{}⟨g→1⟩⟫",
        "",
        "",
        &[f, ("functions.g:1", "g", "1")],
    );
    check("a→b", "", "ab", &[]);
    check("⟪oops⟫ok", "", "oopsok", &[]);
    // Blanks around the head; no prefix; no index, or none that is a number.
    check("⟪ ⟨ functions.f:0 \n→{}⟩\n⟫", "", "", &[f]);
    check("⟪⟨f:0→{}⟩⟫", "", "", &[f]);
    check(
        "⟪⟨f→{}⟩⟨g:x→{}⟩⟫",
        "",
        "",
        &[f, ("functions.g:x:1", "g:x", "{}")],
    );
    // Names nobody declared, and ones with colons and dots.
    check(
        "⟪⟨functions.a.b:c:7→{}⟩⟫",
        "",
        "",
        &[("functions.a.b:c:7", "a.b:c", "{}")],
    );
    // The same id twice.
    check(
        "⟪⟨functions.f:0→{}⟩⟨functions.f:0→1⟩⟫",
        "",
        "",
        &[f, ("functions.f:1", "f", "1")],
    );
    // No arguments at all.
    check("⟪⟨functions.f:0→⟩⟫", "", "", &[f]);
    check("⟪⟨functions.f:0→", "", "", &[f]);
    // Cut short by max_tokens.
    check(
        "⟪⟨functions.f:0→{\"a\":",
        "",
        "",
        &[("functions.f:0", "f", "{\"a\":")],
    );
    check("⟪⟨functions.f", "", "", &[]);
    check("<think>half a thou", "half a thou", "", &[]);
    // An index too large to count on from.
    check(
        "⟪⟨f:99999999999→1⟩⟫",
        "",
        "",
        &[("functions.f:0", "f", "1")],
    );
}

#[test]
fn text_that_looks_like_a_mark_stays_text() {
    let mut parser = TurnParser::new(&tokenizer(), &[], &[]);
    let text = "<think>x</think><|tool_calls_section_begin|><|tool_call_begin|>f:0";
    assert_eq!(
        parser.push(u32::from(b'x'), text),
        Some(Part::Content(text.to_owned()))
    );
}

#[test]
fn a_prompt_that_opens_thoughts_begins_in_them() {
    let tokenizer = tokenizer();
    let think = tokenizer.special("<think>").unwrap();
    let mut parser = TurnParser::new(&tokenizer, &[1, think], &[]);
    let whole = parse("a</think>b", &mut parser);
    assert_eq!(
        (whole.reasoning.as_str(), whole.content.as_str()),
        ("a", "b")
    );
    let end = tokenizer.special("</think>").unwrap();
    let mut parser = TurnParser::new(&tokenizer, &[think, end], &[]);
    assert_eq!(parse("b", &mut parser).content, "b");
}

#[test]
fn indices_count_over_the_conversation() {
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
    };
    let history = [ChatMessage {
        tool_calls: vec![call("functions.f:3"), call("call_abc")],
        ..ChatMessage::new("assistant", "")
    }];
    let ids = |turn: &str| -> Vec<String> {
        let mut parser = TurnParser::new(&tokenizer(), &[], &history);
        let calls = parse(turn, &mut parser).calls;
        calls.into_iter().map(|call| call.id).collect()
    };
    // The foreign id is index 4 to the model.
    assert_eq!(ids("⟪⟨functions.f:5→1⟩⟫"), ["functions.f:5"]);
    assert_eq!(
        ids("⟪⟨functions.f:3→1⟩⟨functions.f:4→1⟩⟫"),
        ["functions.f:5", "functions.f:6"]
    );
    assert_eq!(
        ids("⟪⟨functions.g:3→1⟩⟨g→1⟩⟫"),
        ["functions.g:3", "functions.g:5"]
    );
}

#[test]
fn names_come_before_arguments_and_arguments_as_they_are_written() {
    let tokenizer = tokenizer();
    let mut parser = TurnParser::new(&tokenizer, &[], &[]);
    let mark = |name: &str| tokenizer.special(name).unwrap();
    assert_eq!(parser.push(mark("<|tool_calls_section_begin|>"), ""), None);
    assert_eq!(parser.push(mark("<|tool_call_begin|>"), ""), None);
    assert_eq!(parser.push(0, "functions.f"), None);
    assert_eq!(parser.push(0, ":0"), None);
    assert_eq!(
        parser.push(mark("<|tool_call_argument_begin|>"), ""),
        Some(Part::Call {
            id: "functions.f:0".to_owned(),
            name: "f".to_owned()
        })
    );
    assert_eq!(
        parser.push(0, "{\"a\""),
        Some(Part::Arguments("{\"a\"".to_owned()))
    );
    assert_eq!(
        parser.push(0, ":1}"),
        Some(Part::Arguments(":1}".to_owned()))
    );
    assert_eq!(parser.push(mark("<|tool_call_end|>"), ""), None);
    assert_eq!(parser.finish(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the text between marks is cut, the turn is the same, and no character is lost but in
    /// heads of calls and blanks between calls.
    #[test]
    fn cuts_do_not_matter(
        pieces in prop::collection::vec((0usize..8, "[ -~\n€]{0,6}", 0usize..4), 0..24)
    ) {
        let tokenizer = tokenizer();
        let new = || TurnParser::new(&tokenizer, &[], &[]);
        let (mut whole, mut cut) = (Turn::default(), Turn::default());
        let (mut whole_parser, mut cut_parser) = (new(), new());
        for (mark, text, step) in pieces {
            if let Some((name, _)) = MARKS.get(mark) {
                let id = tokenizer.special(name).unwrap();
                whole.extend(whole_parser.push(id, name));
                cut.extend(cut_parser.push(id, name));
            }
            whole.extend(whole_parser.push(0, &text));
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(step + 1) {
                let piece: String = piece.iter().collect();
                cut.extend(cut_parser.push(0, &piece));
            }
        }
        whole.extend(whole_parser.finish());
        cut.extend(cut_parser.finish());
        prop_assert_eq!(&whole, &cut);
        let mut ids: Vec<&String> = whole.calls.iter().map(|call| &call.id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.calls.len());
    }
}
