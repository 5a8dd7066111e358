//! TABLE of the quantization guide's six quants of Kimi K2. Adding a quant is one row. Sizes are the guide's for the
//! 1T models; a real repository's sizes come from its inspection. It must not know hardware or formulae.

use crate::GB;

/// Where every figure of this table comes from; quality words and scores are the vendor's claims, unverified.
pub const SOURCE: &str = "Understanding GGUF Quantizations for Kimi K2 (quantization guide; scores claimed from Unsloth's testing)";

/// One row of the guide. Everything under "claimed" is shown to users as the vendor's words and used by no formula.
#[derive(Debug, PartialEq, Eq)]
pub struct Quant {
    /// Directory name in the `unsloth/...-GGUF` repositories and the value of `spec.quant`.
    pub name: &'static str,
    /// "Size": bytes of all shards.
    pub size_bytes: u64,
    /// "VRAM w/ offload": routed experts in RAM, at [`crate::catalogue::GUIDE_CONTEXT`] tokens.
    pub vram_bytes: u64,
    /// "RAM needed": the guide's floor beside a GPU. Far less than the size: the rest is read from disk per token.
    pub ram_floor_bytes: u64,
    /// Nominal bits per weight in hundredths, from the guide's heading ("1.8-bit" = 180).
    pub bits_hundredths: u32,
    /// Claimed: the guide's "Effective bits" (MoE/non-MoE).
    pub effective_bits: &'static str,
    /// Claimed: the guide's quality word.
    pub quality: &'static str,
    /// Claimed: tokens per second in tenths, and the GPU it is claimed for.
    pub speed_claim: (u32, &'static str),
    /// Claimed: Aider Polyglot score relative to full precision, in tenths of a percent.
    pub aider_permille: Option<u32>,
    /// Claimed: 5-shot MMLU score relative to full precision, in tenths of a percent.
    pub mmlu_permille: Option<u32>,
    /// The guide's "Use Case" column.
    pub use_case: &'static str,
}

/// Smallest first: `auto` walks this order.
static TABLE: [Quant; 6] = [
    Quant {
        name: "UD-TQ1_0",
        size_bytes: 245 * GB,
        vram_bytes: 8 * GB,
        ram_floor_bytes: 64 * GB,
        bits_hundredths: 180,
        effective_bits: "1.92/1.56",
        quality: "Good (suitable for most tasks)",
        speed_claim: (20, "T4"),
        aider_permille: Some(951),
        mmlu_permille: Some(968),
        use_case: "Dev/testing",
    },
    Quant {
        name: "UD-IQ1_S",
        size_bytes: 281 * GB,
        vram_bytes: 9 * GB,
        ram_floor_bytes: 64 * GB,
        bits_hundredths: 178,
        effective_bits: "2.06/1.56",
        quality: "Better than TQ1_0",
        speed_claim: (18, "T4"),
        aider_permille: Some(958),
        mmlu_permille: Some(972),
        use_case: "Edge deployments",
    },
    Quant {
        name: "UD-Q2_K_XL",
        size_bytes: 381 * GB,
        vram_bytes: 12 * GB,
        ram_floor_bytes: 96 * GB,
        bits_hundredths: 271,
        effective_bits: "3.5/2.5",
        quality: "Excellent (near full precision)",
        speed_claim: (15, "T4"),
        aider_permille: Some(975),
        mmlu_permille: Some(983),
        use_case: "Production",
    },
    Quant {
        name: "UD-IQ3_XXS",
        size_bytes: 417 * GB,
        vram_bytes: 13 * GB,
        ram_floor_bytes: 128 * GB,
        bits_hundredths: 312,
        effective_bits: "3.5/2.06",
        quality: "Very good",
        speed_claim: (13, "T4"),
        aider_permille: None,
        mmlu_permille: None,
        use_case: "Quality-focused",
    },
    Quant {
        name: "UD-Q4_K_XL",
        size_bytes: 588 * GB,
        vram_bytes: 18 * GB,
        ram_floor_bytes: 192 * GB,
        bits_hundredths: 450,
        effective_bits: "5.5/4.5",
        quality: "Near full precision",
        speed_claim: (30, "A10"),
        aider_permille: Some(988),
        mmlu_permille: Some(991),
        use_case: "Research",
    },
    Quant {
        name: "UD-Q5_K_XL",
        size_bytes: 732 * GB,
        vram_bytes: 23 * GB,
        ram_floor_bytes: 256 * GB,
        bits_hundredths: 550,
        effective_bits: "6.5/5.5",
        quality: "Essentially full precision",
        speed_claim: (40, "A10G"),
        aider_permille: Some(992),
        mmlu_permille: Some(995),
        use_case: "Max quality",
    },
];

impl Quant {
    /// Every row, smallest first.
    pub fn all() -> &'static [Quant] {
        &TABLE
    }

    /// The row called `name`, exactly as the repositories spell it.
    pub fn by_name(name: &str) -> Option<&'static Quant> {
        TABLE.iter().find(|row| row.name == name)
    }
}
