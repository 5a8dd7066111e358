//! The small model's vocabulary against tiktoken; `bench/tokenizer.py` does the same with Kimi-K2's.

use std::fs;

use serde::Deserialize;

use super::*;
use crate::testing::{kimi_tiny, testdata};

#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
}

fn tiny() -> Tokenizer {
    let paths = gguf::shard::find_shards(&kimi_tiny("Q8_0")).unwrap();
    let header = gguf::open_header(&paths[0]).unwrap();
    Tokenizer::from_metadata(&header.metadata).unwrap()
}

#[test]
fn ids_are_tiktoken_s() {
    let tokenizer = tiny();
    let goldens = fs::read_to_string(testdata().join("tokenizer/goldens.json")).unwrap();
    for golden in serde_json::from_str::<Vec<Golden>>(&goldens).unwrap() {
        let ids = tokenizer.encode_ordinary(&golden.text);
        assert_eq!(ids, golden.ids, "{:?}", golden.text);
        assert_eq!(tokenizer.decode(&ids), golden.text);
        // As a stream, whatever characters the tokens cut through.
        let mut decoder = StreamDecoder::default();
        let mut streamed = String::new();
        for id in ids {
            streamed += &decoder.push(tokenizer.token_bytes(id));
        }
        assert_eq!(streamed + &decoder.finish(), golden.text);
    }
}

#[test]
fn every_id_decodes_named_or_not() {
    let tokenizer = tiny();
    let vocab = u32::try_from(tokenizer.vocab()).unwrap();
    // The last 256 are special, and most of them have no name but their number.
    for id in vocab - 256..vocab {
        assert!(tokenizer.is_special(id));
        assert!(!tokenizer.decode(&[id]).is_empty(), "{id}");
    }
    assert_eq!(tokenizer.decode(&[vocab, u32::MAX]), "");
    for name in STOP_NAMES {
        assert!(
            tokenizer.is_stop(tokenizer.special(name).unwrap()),
            "{name}"
        );
    }
}
