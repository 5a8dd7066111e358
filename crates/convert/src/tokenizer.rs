//! tiktoken.model and tokenizer_config.json as GGUF's `gpt2`/`kimi-k2` vocabulary: tokens, types, merges, special ids,
//! chat template. It must not encode or decode text.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use gguf::{Array, Metadata, Value};
use serde::Deserialize;

use crate::error::Error;

/// Bytes of tiktoken.model; Kimi's has 2.8 MB.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of one token; the longest of Kimi's has 128.
const TOKEN_BYTES: usize = 1024;

/// Token types as GGUF numbers them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[derive(Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, AddedToken>,
    bos_token: Option<TokenText>,
    pad_token: Option<TokenText>,
    chat_template: Option<ChatTemplate>,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
}

/// A special token is given as text or as an object with its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Text(String),
    Object { content: String },
}

impl TokenText {
    fn text(&self) -> &str {
        match self {
            TokenText::Text(text) | TokenText::Object { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// Sets the `tokenizer.*` keys from a model directory.
///
/// `vocab_size` is config.json's: ids beyond the ranks that nobody named become reserved control tokens, as Kimi's own
/// tokenizer has them. The end-of-sequence id is that of `<|im_end|>`, which ends a turn, where the model has it:
/// configurations name `[EOS]`, which chat models of this family do not emit.
///
/// # Errors
/// When a file is missing, too large, or contradicts itself or `vocab_size`.
pub(crate) fn write_metadata(
    dir: &Path,
    vocab_size: u32,
    config_ids: [Option<u32>; 2],
    metadata: &mut Metadata,
) -> Result<(), Error> {
    let ranks = read_ranks(&dir.join("tiktoken.model"))?;
    let config = read_config(&dir.join("tokenizer_config.json"))?;
    let (tokens, types) = vocabulary(&ranks, &config, vocab_size)?;
    let merges = merges(&ranks)?;
    let id_of = |text: &str| {
        let position = tokens
            .iter()
            .skip(ranks.len())
            .position(|token| token == text);
        position.map(|position| (ranks.len() + position) as u32)
    };
    let [config_bos, config_eos] = config_ids;
    let bos = config
        .bos_token
        .as_ref()
        .and_then(|token| id_of(token.text()));
    let pad = config
        .pad_token
        .as_ref()
        .and_then(|token| id_of(token.text()));
    let ids = [
        ("bos", bos.or(config_bos)),
        ("eos", id_of("<|im_end|>").or(config_eos)),
        ("padding", pad),
    ];

    let mut set = |key: &str, value: Value| {
        metadata.set(&format!("tokenizer.{key}"), value);
    };
    set("ggml.model", Value::String("gpt2".to_owned()));
    set("ggml.pre", Value::String("kimi-k2".to_owned()));
    set("ggml.tokens", Value::Array(Array::String(tokens)));
    set("ggml.token_type", Value::Array(Array::I32(types)));
    set("ggml.merges", Value::Array(Array::String(merges)));
    for (name, id) in ids {
        match id {
            Some(id) if id >= vocab_size => {
                return Err(Error::Tokenizer(format!(
                    "{name} token {id} is beyond the vocabulary"
                )));
            }
            Some(id) => set(&format!("ggml.{name}_token_id"), Value::U32(id)),
            None => {}
        }
    }
    // The chat template writes every special token itself.
    set("ggml.add_bos_token", Value::Bool(false));
    if let Some(template) = chat_template(dir, config.chat_template)? {
        set("chat_template", Value::String(template));
    }
    Ok(())
}

/// The template from tokenizer_config.json, or the file newer repositories keep it in.
fn chat_template(dir: &Path, configured: Option<ChatTemplate>) -> Result<Option<String>, Error> {
    match configured {
        Some(ChatTemplate::One(template)) => return Ok(Some(template)),
        Some(ChatTemplate::Named(all)) => {
            return Ok(all
                .into_iter()
                .find(|one| one.name == "default")
                .map(|one| one.template));
        }
        None => {}
    }
    let path = dir.join("chat_template.jinja");
    if !path.exists() {
        return Ok(None);
    }
    std::fs::read_to_string(&path)
        .map(Some)
        .map_err(Error::io(&path))
}

fn read_config(path: &Path) -> Result<TokenizerConfig, Error> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Json {
        path: path.to_owned(),
        error,
    })
}

/// The byte string of each rank. The file has one `base64 rank` per line.
fn read_ranks(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let broken = |problem: String| Error::File {
        path: path.to_owned(),
        problem,
    };
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if length > FILE_BYTES {
        return Err(broken(format!(
            "{length} bytes are above the limit of {FILE_BYTES}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut ranks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(token, rank)| {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(token)
                .ok()?;
            Some((bytes, rank.parse::<usize>().ok()?))
        });
        match parsed {
            Some((bytes, rank)) if rank == index && (1..=TOKEN_BYTES).contains(&bytes.len()) => {
                ranks.push(bytes)
            }
            _ => {
                let line = index + 1;
                return Err(broken(format!(
                    "line {line} is not a base64 token and the rank {index}"
                )));
            }
        }
    }
    Ok(ranks)
}

fn vocabulary(
    ranks: &[Vec<u8>],
    config: &TokenizerConfig,
    vocab_size: u32,
) -> Result<(Vec<String>, Vec<i32>), Error> {
    let size = vocab_size as usize;
    if ranks.len() > size {
        let ranks = ranks.len();
        return Err(Error::Tokenizer(format!(
            "{ranks} ranks in a vocabulary of {size}"
        )));
    }
    let alphabet = byte_alphabet();
    let mut tokens: Vec<String> = ranks.iter().map(|bytes| spell(bytes, &alphabet)).collect();
    let mut types = vec![NORMAL; ranks.len()];
    for id in ranks.len()..size {
        tokens.push(format!("<|reserved_token_{id}|>"));
        types.push(CONTROL);
    }
    for (id, added) in &config.added_tokens_decoder {
        let id: usize = id
            .parse()
            .ok()
            .filter(|id| (ranks.len()..size).contains(id))
            .ok_or_else(|| {
                Error::Tokenizer(format!(
                    "added token id '{id}' is not between the ranks and {size}"
                ))
            })?;
        tokens[id].clone_from(&added.content);
        types[id] = if added.special { CONTROL } else { USER_DEFINED };
    }
    Ok((tokens, types))
}

/// GPT-2's printable stand-in for each byte: printable Latin-1 bytes stand for themselves, the others, in order, are
/// the characters from U+0100 on.
fn byte_alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        alphabet[usize::from(byte)] = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    alphabet
}

fn spell(bytes: &[u8], alphabet: &[char; 256]) -> String {
    bytes
        .iter()
        .map(|byte| alphabet[usize::from(*byte)])
        .collect()
}

/// The merge list that yields these ranks, in rank order: a token of several bytes is the last merge of the encoding
/// of its own bytes by all lower ranks.
fn merges(ranks: &[Vec<u8>]) -> Result<Vec<String>, Error> {
    let mut by_bytes: HashMap<&[u8], usize> = HashMap::with_capacity(ranks.len());
    for (rank, bytes) in ranks.iter().enumerate() {
        if by_bytes.insert(bytes, rank).is_some() {
            return Err(Error::Tokenizer(format!(
                "rank {rank} repeats an earlier token"
            )));
        }
    }
    let alphabet = byte_alphabet();
    let mut merges = Vec::with_capacity(ranks.len());
    for (rank, bytes) in ranks
        .iter()
        .enumerate()
        .filter(|(_, bytes)| bytes.len() > 1)
    {
        let split = last_merge(bytes, rank, &by_bytes).ok_or_else(|| {
            Error::Tokenizer(format!("rank {rank} is not made of two lower ranks"))
        })?;
        let (left, right) = bytes.split_at(split);
        merges.push(format!(
            "{} {}",
            spell(left, &alphabet),
            spell(right, &alphabet)
        ));
    }
    Ok(merges)
}

/// Where the two parts meet that are left when `bytes` is encoded with the ranks below `limit`.
fn last_merge(bytes: &[u8], limit: usize, by_bytes: &HashMap<&[u8], usize>) -> Option<usize> {
    let mut bounds: Vec<usize> = (0..=bytes.len()).collect();
    while bounds.len() > 3 {
        let (_, at) = (1..bounds.len() - 1)
            .filter_map(|at| {
                let rank = *by_bytes.get(&bytes[bounds[at - 1]..bounds[at + 1]])?;
                (rank < limit).then_some((rank, at))
            })
            .min()?;
        bounds.remove(at);
    }
    bounds.get(1).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_spelled_as_gpt2_does() {
        let alphabet = byte_alphabet();
        assert_eq!(spell(b" the\n", &alphabet), "\u{120}the\u{10a}");
        assert_eq!(
            spell(&[0, 0x7f, 0xad, 0xff], &alphabet),
            "\u{100}\u{121}\u{143}\u{ff}"
        );
        let mut distinct = alphabet.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 256);
    }

    #[test]
    fn merges_follow_the_ranks() {
        let mut ranks: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for token in ["ab", "bc", "abc", "abcbc"] {
            ranks.push(token.into());
        }
        // "abc" is ab+c, not a+bc, because "ab" has the lower rank.
        assert_eq!(merges(&ranks).unwrap(), ["a b", "b c", "ab c", "abc bc"]);
        ranks.push(b"xyz".to_vec());
        assert!(merges(&ranks).unwrap_err().to_string().contains("rank 260"));
        ranks[260] = b"ab".to_vec();
        assert!(merges(&ranks).unwrap_err().to_string().contains("repeats"));
    }
}
