//! Tokenizes texts with the tokenizer of a GGUF file: `tokenize FILE.gguf TEXTS.jsonl IDS.jsonl [ROUNDS]`
//! reads one JSON string a line, writes one list of ids a line, and prints seconds per round.
//! `bench/tokenizer.py` compares it with tiktoken.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, fmt::Write, fs, time::Instant};

use engine::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [model, texts, ids, rest @ ..] = &args[..] else {
        return Err("usage: tokenize FILE.gguf TEXTS.jsonl IDS.jsonl [ROUNDS]".into());
    };
    let rounds = rest.first().map_or(Ok(1), |rounds| rounds.parse())?;
    let header = gguf::open_header(model.as_ref())?;
    let tokenizer = Tokenizer::from_metadata(&header.metadata)?;
    let texts = fs::read_to_string(texts)?;
    let texts: Vec<String> = texts
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;

    let mut out = String::new();
    for text in &texts {
        let tokens = tokenizer.encode_ordinary(text);
        if tokenizer.decode(&tokens) != *text {
            return Err(format!("not the same after decoding: {text:?}").into());
        }
        writeln!(out, "{tokens:?}")?;
    }
    fs::write(ids, out)?;
    for _ in 0..rounds {
        let begun = Instant::now();
        let tokens: usize = texts
            .iter()
            .map(|text| tokenizer.encode_ordinary(text).len())
            .sum();
        println!("{} {tokens}", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
