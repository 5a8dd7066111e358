//! Constraints over the smallest vocabulary, driven by an adversary that prefers what must not come.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;

use super::*;
use crate::tokenizer::Vocabulary;

const SPECIAL: [&str; 8] = [
    "<|im_end|>",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
];

fn tokenizer() -> Tokenizer {
    Tokenizer::new(Vocabulary::bytes(&SPECIAL)).unwrap()
}

/// Which tokens may come next when the model prefers `favourite`.
fn allowed(constraint: &mut Constraint, vocab: usize, favourite: u32) -> Vec<u32> {
    let mut logits = vec![0.0; vocab];
    logits[favourite as usize] = 1.0;
    constraint.mask(&mut logits).unwrap();
    (0..)
        .zip(logits)
        .filter(|(_, logit)| logit.is_finite())
        .map(|(id, _)| id)
        .collect()
}

/// Whether the whole of `text`, special names in it as tokens, is a complete answer.
fn accepts(format: &AnswerFormat, text: &str) -> bool {
    let tokenizer = tokenizer();
    let mut constraint = Grammars::new(&tokenizer)
        .unwrap()
        .constraint(format)
        .unwrap();
    let mut over = false;
    for id in tokenizer.encode_with_special(text) {
        if over || !allowed(&mut constraint, tokenizer.vocab(), id).contains(&id) {
            return false;
        }
        over = constraint.accept(id).unwrap();
    }
    let end = tokenizer.special("<|im_end|>").unwrap();
    over || allowed(&mut constraint, tokenizer.vocab(), end).contains(&end)
}

#[test]
fn any_object_or_one_by_its_schema() {
    let object = AnswerFormat::JsonObject;
    for (text, legal) in [
        (r#"{"a": [1, {"b": null}]}"#, true),
        ("{}", true),
        ("{\n  \"a\": 1\n}", true),
        (r#"{"a":  1}"#, false),
        ("[1]", false),
        ("sure: {}", false),
        (r#"{"a": 1"#, false),
        (r#"{"a": "<|im_end|>"}"#, false),
    ] {
        assert_eq!(accepts(&object, text), legal, "{text}");
    }
    let schema = r##"{"type":"object","properties":{"name":{"type":"string","minLength":2},
        "kind":{"enum":["ship","ark"]},"part":{"$ref":"#/$defs/n"}},"required":["name","kind"],
        "additionalProperties":false,"$defs":{"n":{"type":"integer","minimum":1}}}"##;
    let schema = AnswerFormat::JsonSchema(schema.to_owned());
    for (text, legal) in [
        (r#"{"name": "it", "kind": "ark"}"#, true),
        (r#"{"name": "方舟", "kind": "ark", "part": 3}"#, true),
        (r#"{"name": "it", "kind": "car"}"#, false),
        (r#"{"name": "i", "kind": "ark"}"#, false),
        (r#"{"name": "it"}"#, false),
        (r#"{"name": "it", "kind": "ark", "part": 0}"#, false),
        (r#"{"name": "it", "kind": "ark", "more": 0}"#, false),
    ] {
        assert_eq!(accepts(&schema, text), legal, "{text}");
    }
}

#[test]
fn a_thought_comes_first_and_is_free() {
    let object = AnswerFormat::JsonObject;
    assert!(accepts(&object, "<think>Well, {x.</think>{}"));
    assert!(!accepts(&object, "<think>Well"));
    assert!(!accepts(&object, "<think></think>text"));
    assert!(!accepts(&object, "{}<think>"));

    // Where the prompt opened the thought, the answer begins within it.
    let tokenizer = tokenizer();
    let grammars = Grammars::new(&tokenizer).unwrap();
    let mut constraint = grammars.constraint(&object).unwrap();
    constraint.begin(&tokenizer.encode_with_special("x<think>"));
    let free = allowed(&mut constraint, tokenizer.vocab(), 0);
    let ends: Vec<u32> = free.iter().copied().filter(|id| *id >= 256).collect();
    assert_eq!(free.len(), 257, "all bytes and one special token");
    assert_eq!(ends, [tokenizer.special("</think>").unwrap()]);
}

#[test]
fn calls_of_declared_tools_only() {
    let tool = |name: &str, parameters: Option<&str>| CallableTool {
        name: name.to_owned(),
        parameters: parameters.map(str::to_owned),
    };
    let city = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;
    let format = |parallel| AnswerFormat::ToolCalls {
        tools: vec![tool("get_weather", Some(city)), tool("now", None)],
        parallel,
    };
    let call = |name: &str, arguments: &str| {
        format!(
            "<|tool_call_begin|>functions.{name}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
        )
    };
    let section =
        |calls: &str| format!("<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>");
    let oslo = call("get_weather:0", r#"{"city": "Oslo"}"#);
    let now = call("now:1", "{}");
    assert!(accepts(&format(true), &section(&oslo)));
    assert!(accepts(&format(true), &section(&(oslo.clone() + &now))));
    assert!(!accepts(&format(false), &section(&(oslo.clone() + &now))));
    assert!(accepts(&format(false), &section(&now)));
    assert!(!accepts(&format(true), &section("")));
    assert!(!accepts(&format(true), &oslo));
    assert!(!accepts(
        &format(true),
        &section(&call("get_weather:0", "{}"))
    ));
    assert!(!accepts(&format(true), &section(&call("rm:0", "{}"))));

    let grammars = Grammars::new(&tokenizer()).unwrap();
    let odd = AnswerFormat::ToolCalls {
        tools: vec![tool("a\" | /.*/", None)],
        parallel: true,
    };
    let error = grammars.constraint(&odd).unwrap_err().to_string();
    assert!(error.contains("use letters"), "{error}");
}

#[test]
fn formats_that_cannot_be_guaranteed_are_refused() {
    let grammars = Grammars::new(&tokenizer()).unwrap();
    for (schema, says) in [
        ("{", "not JSON"),
        (r#"{"type":"strange"}"#, "strange"),
        (
            r#"{"type":"object","unevaluatedProperties":false}"#,
            "unevaluatedProperties",
        ),
        (r#"{"$ref":"http://example.com/x"}"#, "example.com"),
        (r#"{"type":"string","pattern":"(?=a)"}"#, "look-ahead"),
    ] {
        let format = AnswerFormat::JsonSchema(schema.to_owned());
        let error = grammars.constraint(&format).unwrap_err().to_string();
        assert!(error.contains(says), "{schema}: {error}");
    }
    let bare = Tokenizer::new(Vocabulary::bytes(&[])).unwrap();
    assert!(Grammars::new(&bare).is_err());
    let stop_only = Tokenizer::new(Vocabulary::bytes(&["[EOS]"])).unwrap();
    let grammars = Grammars::new(&stop_only).unwrap();
    let calls = AnswerFormat::ToolCalls {
        tools: Vec::new(),
        parallel: true,
    };
    let error = grammars.constraint(&calls).unwrap_err().to_string();
    assert!(error.contains("no tokens for tool calls"), "{error}");
}

#[test]
fn two_answers_of_one_format_do_not_meet() {
    let tokenizer = tokenizer();
    let grammars = Grammars::new(&tokenizer).unwrap();
    let mut first = grammars.constraint(&AnswerFormat::JsonObject).unwrap();
    let mut second = first.clone();
    let (open, close) = (u32::from(b'{'), u32::from(b'}'));
    first.accept(open).unwrap();
    assert_eq!(allowed(&mut second, tokenizer.vocab(), open), [open]);
    let think = tokenizer.special("<think>").unwrap();
    assert_eq!(
        allowed(&mut second, tokenizer.vocab(), think),
        [open, think],
        "a model that would rather think may"
    );
    assert!(allowed(&mut first, tokenizer.vocab(), think).contains(&close));
}

/// Whatever the model prefers, the answer parses: at each step the last allowed token is taken, then
/// the quotes and brackets that end the text soonest.
#[test]
fn every_path_leads_to_json() {
    let tokenizer = tokenizer();
    let grammars = Grammars::new(&tokenizer).unwrap();
    let mut constraint = grammars.constraint(&AnswerFormat::JsonObject).unwrap();
    let mut text = String::new();
    let mut over = false;
    for step in 0..400 {
        let allowed = allowed(&mut constraint, tokenizer.vocab(), 0);
        let ordinary: Vec<u32> = allowed.into_iter().filter(|id| *id < 128).collect();
        let ending = [b'"', b'}', b']', b'0'].map(u32::from);
        let soonest = ending.into_iter().find(|id| ordinary.contains(id));
        let id = match soonest {
            Some(id) if step > 100 => id,
            _ => *ordinary.last().unwrap(),
        };
        text.push(char::from(id as u8));
        over = constraint.accept(id).unwrap();
        if over {
            break;
        }
    }
    assert!(over, "{text}");
    assert!(serde_json::from_str::<Value>(&text).unwrap().is_object());
}

/// What a vocabulary of Kimi's size costs: `cargo test -p engine --lib -- --ignored --nocapture cost_of`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
fn cost_of_a_large_vocabulary() {
    use std::time::Instant;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const TOKENS: usize = 163_840;
    // Words of 2 to 12 letters, half of them after a blank, as most tokens of a real vocabulary are.
    let mut rng = StdRng::seed_from_u64(1);
    let mut vocabulary = Vocabulary::bytes(&[]);
    let mut known: std::collections::HashSet<String> = vocabulary.tokens.iter().cloned().collect();
    while vocabulary.tokens.len() < TOKENS - SPECIAL.len() {
        let letters = rng.random_range(2..=12);
        let word: String = (0..letters)
            .map(|_| char::from(rng.random_range(b'a'..=b'z')))
            .collect();
        let blank = if rng.random() { "\u{120}" } else { "" };
        let token = format!("{blank}{word}");
        if known.insert(token.clone()) {
            vocabulary.tokens.push(token);
            vocabulary.special.push(false);
        }
    }
    for name in SPECIAL {
        vocabulary.tokens.push(name.to_owned());
        vocabulary.special.push(true);
    }
    let tokenizer = Tokenizer::new(vocabulary).unwrap();

    let begun = Instant::now();
    let grammars = Grammars::new(&tokenizer).unwrap();
    eprintln!("table of {TOKENS} tokens: {:?}", begun.elapsed());
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":40},
        "tags":{"type":"array","items":{"type":"string"}},"n":{"type":"integer"}},"required":["name","tags","n"]}"#;
    for format in [
        AnswerFormat::JsonObject,
        AnswerFormat::JsonSchema(schema.to_owned()),
    ] {
        let begun = Instant::now();
        let mut constraint = grammars.constraint(&format).unwrap();
        let compiled = begun.elapsed();
        let text =
            r#"{"name": "a name of some words", "tags": ["one", "two tags", "three"], "n": 12345}"#;
        let mut logits = vec![0.0; TOKENS];
        let (mut all, mut most) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
        let ids = tokenizer.encode_ordinary(text);
        for id in &ids {
            let begun = Instant::now();
            constraint.mask(&mut logits).unwrap();
            all += begun.elapsed();
            most = most.max(begun.elapsed());
            constraint.accept(*id).unwrap();
        }
        let mean = all / u32::try_from(ids.len()).unwrap();
        eprintln!("compiled in {compiled:?}; per token {mean:?}, at most {most:?}");
    }
}
