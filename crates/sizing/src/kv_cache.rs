//! KV cache bytes of multi-head latent attention: one row per token and layer holds the compressed KV and the rotary
//! key, for all heads together. It must not know weights or hardware.

use gguf::Dtype;

use crate::Hyper;

/// How the rows of a KV cache are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Four bytes a value: for comparison with references to the last digits.
    F32,
    /// Two bytes a value. The default: docs/fidelity.md shows what it costs, which is nothing measurable.
    #[default]
    F16,
    /// 34 bytes per 32 values.
    Q8_0,
}

impl CacheType {
    /// Every type, largest first.
    pub const ALL: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Q8_0];

    /// The name that command lines use, as llama-server's `-ctk` has it.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// The tensor type whose blocks rows are made of.
    pub const fn dtype(self) -> Dtype {
        match self {
            CacheType::F32 => Dtype::F32,
            CacheType::F16 => Dtype::F16,
            CacheType::Q8_0 => Dtype::Q8_0,
        }
    }

    /// Bytes of a row of `values` values.
    pub const fn row_bytes(self, values: u64) -> u64 {
        let dtype = self.dtype();
        values
            .div_ceil(dtype.block_values() as u64)
            .saturating_mul(dtype.block_bytes() as u64)
    }
}

/// Why a word is no type of KV cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no type of KV cache; use f16, q8_0 or f32")]
pub struct UnknownCacheType(String);

impl std::str::FromStr for CacheType {
    type Err = UnknownCacheType;

    fn from_str(name: &str) -> Result<Self, UnknownCacheType> {
        CacheType::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownCacheType(name.to_owned()))
    }
}

impl std::fmt::Display for CacheType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes of KV cache per token: a row of kv_lora_rank + rope_dim values per layer. K2 in f16: 576 x 2 x 61 = 70,272.
/// (DeepSeek-V2, arXiv 2405.04434, section 2.1.)
pub fn bytes_per_token(hyper: &Hyper, kind: CacheType) -> u64 {
    let row = u64::from(hyper.kv_lora_rank) + u64::from(hyper.rope_dim);
    kind.row_bytes(row).saturating_mul(u64::from(hyper.layers))
}

/// Bytes of KV cache for `context` tokens.
pub fn bytes(hyper: &Hyper, context: u64, kind: CacheType) -> u64 {
    bytes_per_token(hyper, kind).saturating_mul(context)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn a_token_of_k2_and_of_moonlight() {
        let per_token = |name, kind| bytes_per_token(&Model::by_name(name).unwrap().hyper, kind);
        for (kind, k2, moonlight) in [
            (CacheType::F32, 140_544, 62_208),
            (CacheType::F16, 70_272, 31_104),
            (CacheType::Q8_0, 37_332, 16_524),
        ] {
            assert_eq!(per_token("Kimi-K2-Instruct", kind), k2);
            assert_eq!(per_token("Moonlight-16B-A3B-Instruct", kind), moonlight);
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in CacheType::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "q4_0".parse::<CacheType>().unwrap_err().to_string();
        assert!(
            error.contains("'q4_0'") && error.contains("q8_0"),
            "{error}"
        );
    }
}
