//! The tables of a tokenizer, a line for each entry, and text for it: a table that makes sense gives text back as it
//! was, whole and as a stream, and takes no text for a special token; of one that does not the error says why.

use engine::{
    Tokenizer,
    tokenizer::{StreamDecoder, Vocabulary},
};

pub(crate) const WORDS: &[&str] = &[
    "\n+",
    "\n*",
    "\n&",
    "\n^",
    "\n$",
    "\n!",
    "\n-",
    "a",
    "b",
    " ",
    "Ġ",
    "Ċ",
    "ĠĠ",
    "é",
    "한",
    "🙂",
    "<|im_end|>",
    "[EOS]",
    "256",
    "4294967295",
    "\r\n",
    "'s",
    "中",
    "\u{301}",
];

pub(crate) fn run(bytes: &[u8]) {
    let input = String::from_utf8_lossy(bytes);
    let (vocabulary, text) = read(&input);
    let tokenizer = match Tokenizer::new(vocabulary) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let ids = tokenizer.encode_ordinary(&text);
    assert_eq!(tokenizer.decode(&ids), text);
    assert!(!ids.iter().any(|id| tokenizer.is_special(*id)));
    let mut decoder = StreamDecoder::default();
    let mut streamed = String::new();
    for id in ids {
        streamed += &decoder.push(tokenizer.token_bytes(id));
    }
    assert_eq!(streamed + &decoder.finish(), text);
    let ids = tokenizer.encode_with_special(&text);
    assert_eq!(tokenizer.decode(&ids), text);
}

/// `+token`, `*special token`, `&left right` of a merge, `^`, `$` and `!` with the ids of begin, end and a stop; a `-`
/// takes away the tokens of the single bytes, which are there otherwise. Every other line is text.
fn read(input: &str) -> (Vocabulary, String) {
    let mut vocabulary = Vocabulary::bytes(&[]);
    let mut text = String::new();
    for line in input.split_inclusive('\n') {
        let entry = line.strip_suffix('\n').unwrap_or(line);
        let mut rest = entry.chars();
        let kind = rest.next();
        let rest = rest.as_str();
        match kind {
            Some('+' | '*') => {
                vocabulary.tokens.push(rest.to_owned());
                vocabulary.special.push(kind == Some('*'));
            }
            Some('&') => vocabulary.merges.push(rest.to_owned()),
            Some('^') => vocabulary.bos = rest.parse().ok(),
            Some('$') => vocabulary.eos = rest.parse().ok(),
            Some('!') => vocabulary.stops.extend(rest.parse::<u32>()),
            Some('-') => vocabulary.tokens.clear(),
            _ => text += line,
        }
    }
    (vocabulary, text)
}
