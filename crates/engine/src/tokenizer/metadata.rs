//! The vocabulary of a GGUF file. It must not know how tokens are used.

use gguf::{Metadata, MetadataError, Value};

use super::{Tokenizer, Vocabulary};
use crate::Error;

/// The only value of `tokenizer.ggml.token_type` that ordinary text may yield; all others are
/// control, user-defined, unknown or unused tokens.
const NORMAL: i32 = 1;

impl Tokenizer {
    /// Reads the tokenizer of a file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for another kind of tokenizer than Kimi's or inconsistent tables,
    /// [`Error::Metadata`] naming a missing key.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        for (key, wanted) in [
            ("tokenizer.ggml.model", "gpt2"),
            ("tokenizer.ggml.pre", "kimi-k2"),
        ] {
            let found = metadata.get_str(key)?;
            if found != wanted {
                return Err(Error::Tokenizer(format!(
                    "{key} is '{found}', and only '{wanted}' is supported; convert the model with a \
                     current converter"
                )));
            }
        }
        let tokens = metadata.get_strings("tokenizer.ggml.tokens")?.to_vec();
        let types = metadata.get_i32s("tokenizer.ggml.token_type")?;
        let id = |key: &str| metadata.opt_u32(&format!("tokenizer.ggml.{key}_token_id"));
        let stops = [id("eot")?, id("eom")?].into_iter().flatten().collect();
        Self::new(Vocabulary {
            special: types.iter().map(|kind| *kind != NORMAL).collect(),
            tokens,
            merges: metadata.get_strings("tokenizer.ggml.merges")?.to_vec(),
            bos: id("bos")?,
            eos: id("eos")?,
            stops,
            add_bos: metadata
                .opt_bool("tokenizer.ggml.add_bos_token")?
                .unwrap_or(false),
        })
    }
}

/// The chat template of a file, if it has one.
pub(crate) fn chat_template(metadata: &Metadata) -> Result<Option<&str>, MetadataError> {
    match metadata.get("tokenizer.chat_template") {
        Some(Value::String(source)) if source.is_empty() => Ok(None),
        _ => metadata.opt_str("tokenizer.chat_template"),
    }
}
