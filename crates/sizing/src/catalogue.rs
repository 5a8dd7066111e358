//! TABLE of models that `spec.model` may name, with the repository that holds their GGUF quants and the shapes that
//! the formulae need. Adding a model is one row. It must not know quants, hardware or formulae.

use crate::facts::Hyper;

/// Context in tokens that the guide's VRAM figures are read as including. The guide names none; this is the context
/// of Unsloth's own run command for these files. A plan for more (or fewer) tokens adds (or takes) KV cache.
pub const GUIDE_CONTEXT: u64 = 16_384;

/// Context served when the spec names none: the guide's, or the model's maximum where that is smaller.
pub const DEFAULT_CONTEXT: u64 = GUIDE_CONTEXT;

/// Parameter counts by the three ways a server treats weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Read for every token: attention, dense layers, shared experts, routers, output head.
    pub always_active: u64,
    /// Token embedding: one row is read per token, so it stays in RAM.
    pub embedding: u64,
    /// Routed experts of all layers.
    pub routed: u64,
}

impl Parameters {
    /// All parameters.
    pub const fn total(&self) -> u64 {
        self.always_active + self.embedding + self.routed
    }
}

/// One model of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The value of `spec.model`.
    pub name: &'static str,
    /// Hugging Face repository with the GGUF files.
    pub repo: &'static str,
    /// Longest context the model was trained for, in tokens.
    pub max_context: u64,
    /// True where the guide's quant table (a 1T Kimi K2) describes this model's files.
    pub in_guide: bool,
    pub hyper: Hyper,
    pub parameters: Parameters,
}

/// Kimi K2 (every 1T revision): 61 layers, layer 0 dense, MLA 512 + 64, 384 experts of which 8 and 1 shared.
const K2: Hyper = Hyper {
    layers: 61,
    dense_layers: 1,
    hidden: 7168,
    heads: 64,
    kv_lora_rank: 512,
    rope_dim: 64,
    experts: 384,
    experts_used: 8,
    shared_experts: 1,
    vocab: 163_840,
};

/// From K2's shapes. Per layer: attention 101,122,048 (q_a 7168x1536, q_b 1536x12288, kv_a 7168x576, k_b and v_b
/// 512x64x128 each, o 8192x7168), one expert 3x7168x2048 = 44,040,192.
const K2_PARAMETERS: Parameters = Parameters {
    // 61 attention + 60 shared experts + dense 3x7168x18432 + head 7168x163840 + 60 routers 7168x384
    always_active: 10_546_774_016,
    embedding: 1_174_405_120,
    routed: 60 * 384 * 44_040_192,
};

/// Moonlight 16B-A3B, also the text part of Kimi-VL A3B: no q_lora, 64 experts of which 6, 2 shared (fused).
const A3B: Hyper = Hyper {
    layers: 27,
    dense_layers: 1,
    hidden: 2048,
    heads: 16,
    kv_lora_rank: 512,
    rope_dim: 64,
    experts: 64,
    experts_used: 6,
    shared_experts: 2,
    vocab: 163_840,
};

const A3B_PARAMETERS: Parameters = Parameters {
    // 27 attention of 13,762,560 + 26 shared 3x2048x2816 + dense 3x2048x11264 + head + 26 routers 2048x64
    always_active: 1_229_586_432,
    embedding: 335_544_320,
    routed: 26 * 64 * 8_650_752,
};

const fn k2(name: &'static str, repo: &'static str, max_context: u64) -> Model {
    Model {
        name,
        repo,
        max_context,
        in_guide: true,
        hyper: K2,
        parameters: K2_PARAMETERS,
    }
}

const fn a3b(name: &'static str, repo: &'static str, max_context: u64) -> Model {
    Model {
        name,
        repo,
        max_context,
        in_guide: false,
        hyper: A3B,
        parameters: A3B_PARAMETERS,
    }
}

static TABLE: [Model; 9] = [
    k2("Kimi-K2-Instruct", "unsloth/Kimi-K2-Instruct-GGUF", 131_072),
    k2(
        "Kimi-K2-Instruct-0905",
        "unsloth/Kimi-K2-Instruct-0905-GGUF",
        262_144,
    ),
    k2("Kimi-K2-Thinking", "unsloth/Kimi-K2-Thinking-GGUF", 262_144),
    k2("Kimi-K2.5", "unsloth/Kimi-K2.5-GGUF", 262_144),
    k2("Kimi-K2.6", "unsloth/Kimi-K2.6-GGUF", 262_144),
    k2("Kimi-K2.7-Code", "unsloth/Kimi-K2.7-Code-GGUF", 262_144),
    a3b(
        "Moonlight-16B-A3B-Instruct",
        "gabriellarson/Moonlight-16B-A3B-Instruct-GGUF",
        8_192,
    ),
    a3b(
        "Kimi-VL-A3B-Instruct",
        "mradermacher/Kimi-VL-A3B-Instruct-GGUF",
        131_072,
    ),
    a3b(
        "Kimi-VL-A3B-Thinking",
        "ggml-org/Kimi-VL-A3B-Thinking-2506-GGUF",
        131_072,
    ),
];

impl Model {
    /// Every row, in the order of the documentation.
    pub fn all() -> &'static [Model] {
        &TABLE
    }

    /// The row called `name`, exactly.
    pub fn by_name(name: &str) -> Option<&'static Model> {
        TABLE.iter().find(|row| row.name == name)
    }

    /// The row whose files live in `repo` (case-insensitive, as the hub is).
    pub fn by_repo(repo: &str) -> Option<&'static Model> {
        TABLE.iter().find(|row| row.repo.eq_ignore_ascii_case(repo))
    }

    /// Context served when the spec names none.
    pub fn default_context(&self) -> u64 {
        self.max_context.min(DEFAULT_CONTEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of the table from the shapes in its comments.
    #[test]
    fn parameters_add_up() {
        let attention =
            7168 * 1536 + 1536 * 12_288 + 7168 * 576 + 2 * 512 * 64 * 128 + 8192 * 7168u64;
        let expert = 3 * 7168 * 2048;
        let head = 7168 * 163_840;
        let routers = 60 * 7168 * 384;
        let active = 61 * attention + 60 * expert + 3 * 7168 * 18_432 + head + routers;
        assert_eq!(
            (active, head),
            (K2_PARAMETERS.always_active, K2_PARAMETERS.embedding)
        );
        assert_eq!(K2_PARAMETERS.total(), 1_026_407_202_816);

        let attention = 2048 * 3072 + 2048 * 576 + 2 * 512 * 16 * 128 + 2048 * 2048u64;
        let shared = 3 * 2048 * 2816;
        let head = 2048 * 163_840;
        let active = 27 * attention + 26 * shared + 3 * 2048 * 11_264 + head + 26 * 2048 * 64;
        assert_eq!(
            (active, head),
            (A3B_PARAMETERS.always_active, A3B_PARAMETERS.embedding)
        );
        assert_eq!(A3B_PARAMETERS.total(), 15_959_982_080);
    }

    #[test]
    fn names_and_repositories_find_their_row() {
        for row in Model::all() {
            assert_eq!(Model::by_name(row.name), Some(row));
            assert_eq!(Model::by_repo(&row.repo.to_lowercase()), Some(row));
            assert!(row.default_context() <= row.max_context);
        }
        assert_eq!(Model::by_name("Kimi-K9"), None);
    }
}
