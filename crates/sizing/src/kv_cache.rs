//! KV cache bytes of multi-head latent attention: one row per token and layer holds the compressed KV and the rotary
//! key, for all heads together. It must not know weights or hardware.

use crate::Hyper;

/// Bytes of one cached value: f16.
pub const BYTES_PER_VALUE: u64 = 2;

/// Bytes of KV cache per token: (kv_lora_rank + rope_dim) x layers x bytes per value. K2: 576 x 61 x 2 = 70,272.
/// (DeepSeek-V2, arXiv 2405.04434, section 2.1.)
pub fn bytes_per_token(hyper: &Hyper, bytes_per_value: u64) -> u64 {
    let row = u64::from(hyper.kv_lora_rank) + u64::from(hyper.rope_dim);
    row.saturating_mul(u64::from(hyper.layers))
        .saturating_mul(bytes_per_value)
}

/// Bytes of KV cache for `context` tokens.
pub fn bytes(hyper: &Hyper, context: u64, bytes_per_value: u64) -> u64 {
    bytes_per_token(hyper, bytes_per_value).saturating_mul(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn a_token_of_k2_and_of_moonlight() {
        let per_token =
            |name| Model::by_name(name).map(|m| bytes_per_token(&m.hyper, BYTES_PER_VALUE));
        assert_eq!(per_token("Kimi-K2-Instruct"), Some(70_272));
        assert_eq!(per_token("Moonlight-16B-A3B-Instruct"), Some(31_104));
    }
}
