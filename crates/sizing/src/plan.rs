//! The plan: every formula in order, from weights to a verdict. It must not know where the input came from or who
//! reads the plan; it never fails, since a refusal is a value with its numbers.

use serde::Serialize;

use crate::kv_cache::CacheType;
use crate::offload::{self, Placed};
use crate::time::{self, TokenReads};
use crate::verdict;
use crate::weights::Weights;
use crate::{Facts, Hardware, Hyper, Model, Quant, catalogue, kv_cache, storage};

/// Where the sizes come from. Exact facts win over the catalogue wherever both exist.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    Catalogue { model: &'a Model, quant: &'a Quant },
    Exact(&'a Facts),
}

/// All that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub source: Source<'a>,
    pub hardware: &'static Hardware,
    /// Tokens of context to serve; `None` for the default.
    pub context: Option<u64>,
    /// RAM budget in bytes; `None` leaves RAM unchecked.
    pub memory: Option<u64>,
    /// Room on the volume beyond the weights, in bytes; `None` for [`crate::storage`]'s rule.
    pub headroom: Option<u64>,
    /// Download bandwidth in bits per second.
    pub bandwidth_bits: u64,
    /// True where the CPU may serve in place of the GPU: RAM must then hold everything.
    pub cpu_fallback: bool,
    /// How the KV cache is stored.
    pub cache_type: CacheType,
}

/// Download bandwidth assumed where none is known: the guide's 1 Gbps column.
pub const DEFAULT_BANDWIDTH_BITS: u64 = 1_000_000_000;

impl<'a> Input<'a> {
    /// An input with every default.
    pub fn new(source: Source<'a>, hardware: &'static Hardware) -> Self {
        Input {
            source,
            hardware,
            context: None,
            memory: None,
            headroom: None,
            bandwidth_bits: DEFAULT_BANDWIDTH_BITS,
            cpu_fallback: false,
            cache_type: CacheType::default(),
        }
    }
}

/// Which tables a plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    Catalogue,
    Exact,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fits {
    Yes,
    Tight,
    No,
}

/// The one check that decided the verdict; CamelCase names fit a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Cause {
    /// Everything fits with room to spare.
    Fits,
    /// Runs, but with less than a fifth of the VRAM left.
    TightVram,
    /// Runs, but experts are read from disk while decoding.
    StreamsFromDisk,
    ContextTooLong,
    VramTooSmall,
    RamTooSmall,
    /// The numbers of the input are beyond what can be added up.
    OutOfRange,
}

/// What serving a quant on some hardware takes. Field names are those of `status.plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub basis: Basis,
    pub quant: String,
    pub hardware: &'static str,
    /// Tokens of context planned for.
    #[serde(rename = "contextLength")]
    pub context: u64,
    /// Size of the volume.
    pub storage_bytes: u64,
    /// RAM with every expert resident that is not in VRAM.
    pub ram_bytes: u64,
    /// RAM below which a single token's experts do not fit: streaming from disk stops making sense.
    pub ram_min_bytes: u64,
    /// The guide's RAM floor, where its table has one for this quant, and with `cpuFallback` what the CPU needs beside
    /// it in the GPU's place. Absent on CPU hardware and in exact mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_floor_bytes: Option<u64>,
    /// VRAM without any routed expert: always-active weights, KV cache, buffers, margin. 0 on the CPU.
    pub vram_bytes: u64,
    /// The guide's VRAM figure at this context, where it has one; `vram_bytes` is the same in catalogue mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue_vram_bytes: Option<u64>,
    /// Whole routed experts that fit in the rest of the VRAM.
    pub gpu_experts: u64,
    pub download_seconds: u64,
    /// Decode speed expected from memory bandwidths alone, in thousandths of a token per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milli_tokens_per_second: Option<u64>,
    pub fits: Fits,
    pub cause: Cause,
    /// The verdict in words, with the numbers; for a refusal also the largest quant that fits.
    pub reason: String,
}

/// VRAM kept free of everything: the CUDA context and fragmentation (llama.cpp's `--fit` keeps the same 1,024 MiB).
pub const VRAM_MARGIN: u64 = 1 << 30;

/// RAM of the server process besides weights, KV cache and buffers: code, tokenizer, HTTP connections.
pub const PROCESS_BYTES: u64 = 512 << 20;

/// Tokens that a prefill step works on at once.
const PREFILL_BATCH: u64 = 512;
/// Query rows whose attention scores exist at the same time.
const ATTENTION_ROWS: u64 = 16;
/// Rows of `hidden` width alive at once in a block, per token of the batch.
const LIVE_ROWS: u64 = 8;

/// Every number of a plan, before the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Bytes of all files.
    pub(crate) size: u64,
    pub(crate) context: u64,
    pub(crate) max_context: u64,
    pub(crate) kv_per_token: u64,
    pub(crate) storage: u64,
    pub(crate) ram: u64,
    pub(crate) ram_min: u64,
    pub(crate) ram_floor: Option<u64>,
    pub(crate) vram: u64,
    pub(crate) catalogue_vram: Option<u64>,
    pub(crate) placed: Placed,
    pub(crate) download_seconds: u64,
    pub(crate) milli_tokens_per_second: Option<u64>,
    /// Thousandths of the experts outside VRAM that the RAM counted on can hold.
    pub(crate) resident_permille: u64,
}

/// Makes a plan. Never fails and never panics: what cannot fit is `fits: no` with the numbers in `reason`.
pub fn plan(input: &Input<'_>) -> Plan {
    let numbers = numbers(input);
    let cause = verdict::cause(input, &numbers);
    Plan {
        basis: match input.source {
            Source::Catalogue { .. } => Basis::Catalogue,
            Source::Exact(_) => Basis::Exact,
        },
        quant: input.source.quant_name().to_owned(),
        hardware: input.hardware.name,
        context: numbers.context,
        storage_bytes: numbers.storage,
        ram_bytes: numbers.ram,
        ram_min_bytes: numbers.ram_min,
        ram_floor_bytes: numbers.ram_floor,
        vram_bytes: numbers.vram,
        catalogue_vram_bytes: numbers.catalogue_vram,
        gpu_experts: numbers.placed.count,
        download_seconds: numbers.download_seconds,
        milli_tokens_per_second: numbers.milli_tokens_per_second,
        fits: verdict::fits(cause),
        cause,
        reason: verdict::words(input, &numbers, cause),
    }
}

impl Source<'_> {
    pub(crate) fn quant_name(&self) -> &str {
        match self {
            Source::Catalogue { quant, .. } => quant.name,
            Source::Exact(facts) => &facts.quant,
        }
    }

    fn hyper(&self) -> &Hyper {
        match self {
            Source::Catalogue { model, .. } => &model.hyper,
            Source::Exact(facts) => &facts.hyper,
        }
    }

    fn weights(&self) -> Weights {
        match self {
            Source::Catalogue { model, quant } => Weights::from_catalogue(model, quant),
            Source::Exact(facts) => Weights::from_facts(facts),
        }
    }

    fn max_context(&self) -> u64 {
        match self {
            Source::Catalogue { model, .. } => model.max_context,
            Source::Exact(facts) => facts.context_length,
        }
    }

    /// The guide's row for this model and quant, if it has one.
    pub(crate) fn guide_row(&self) -> Option<&Quant> {
        match self {
            Source::Catalogue { model, quant } => model.in_guide.then_some(*quant),
            Source::Exact(facts) => Model::by_repo(&facts.repo)
                .filter(|model| model.in_guide)
                .and_then(|_| Quant::by_name(&facts.quant)),
        }
    }
}

/// The formulae, in order.
pub(crate) fn numbers(input: &Input<'_>) -> Numbers {
    let source = &input.source;
    let hyper = source.hyper();
    let weights = source.weights();
    let max_context = source.max_context();
    let context = input
        .context
        .unwrap_or(max_context.min(catalogue::DEFAULT_CONTEXT));

    let kv = kv_cache::bytes(hyper, context, input.cache_type);
    let buffers = buffer_bytes(hyper, context);

    let catalogue_vram = source
        .guide_row()
        .filter(|_| !input.hardware.is_cpu())
        .map(|row| guide_vram(row, hyper, kv));
    let vram = match (source, catalogue_vram) {
        _ if input.hardware.is_cpu() => 0,
        (Source::Catalogue { .. }, Some(guide)) => guide,
        _ => sum(&[weights.always_active, kv, buffers, VRAM_MARGIN]),
    };
    let spare = input.hardware.memory_bytes.saturating_sub(vram);
    let placed = offload::whole_experts(spare, &weights.expert_sizes);

    let on_cpu = input.hardware.is_cpu() || input.cpu_fallback;
    // What the device holds beside routed experts moves to RAM when the CPU is the device.
    let moved = if on_cpu {
        sum(&[weights.always_active, kv, buffers])
    } else {
        0
    };
    let ram_base = sum(&[weights.embedding, PROCESS_BYTES, moved]);
    let in_vram = if on_cpu { 0 } else { placed.bytes };
    let routed_in_ram = weights.routed.saturating_sub(in_vram);
    let ram = ram_base.saturating_add(routed_in_ram);
    let ram_min = ram_base.saturating_add(weights.per_token.min(routed_in_ram));
    let ram_floor = match source {
        Source::Catalogue { .. } if !input.hardware.is_cpu() => source
            .guide_row()
            .map(|row| row.ram_floor_bytes.saturating_add(moved)),
        _ => None,
    };

    let counted_on = input.memory.or(ram_floor).unwrap_or(ram);
    let in_ram = counted_on.saturating_sub(ram_base).min(routed_in_ram);
    let resident_permille = ratio_permille(in_ram, routed_in_ram);
    let part = |bytes| portion(weights.per_token, bytes, weights.routed);
    let reads = TokenReads {
        device: sum(&[weights.always_active, kv, part(in_vram)]),
        ram: part(in_ram),
        disk: part(routed_in_ram - in_ram),
    };
    let device_bandwidth = if on_cpu {
        time::HOST_RAM_BANDWIDTH
    } else {
        input.hardware.bandwidth
    };

    Numbers {
        size: weights.total,
        context,
        max_context,
        kv_per_token: kv_cache::bytes_per_token(hyper, input.cache_type),
        storage: storage::volume_bytes(weights.total, input.headroom),
        ram,
        ram_min,
        ram_floor,
        vram,
        catalogue_vram,
        placed,
        download_seconds: time::download_seconds(weights.total, input.bandwidth_bits),
        milli_tokens_per_second: time::milli_tokens_per_second(reads, device_bandwidth),
        resident_permille,
    }
}

/// Activations of one prefill step in f32: logits, `LIVE_ROWS` rows of the residual stream and the latent queries per
/// token, and the attention scores of a few query rows over the whole context.
pub fn buffer_bytes(hyper: &Hyper, context: u64) -> u64 {
    const F32: u64 = 4;
    let heads = u64::from(hyper.heads);
    let latent = u64::from(hyper.kv_lora_rank) + u64::from(hyper.rope_dim);
    let per_token = sum(&[
        u64::from(hyper.vocab),
        LIVE_ROWS.saturating_mul(u64::from(hyper.hidden)),
        heads.saturating_mul(latent),
    ]);
    let scores = heads.saturating_mul(ATTENTION_ROWS).saturating_mul(context);
    PREFILL_BATCH
        .saturating_mul(per_token)
        .saturating_add(scores)
        .saturating_mul(F32)
}

/// The guide's figure, moved from its context to ours.
fn guide_vram(row: &Quant, hyper: &Hyper, kv: u64) -> u64 {
    let included = kv_cache::bytes(hyper, catalogue::GUIDE_CONTEXT, CacheType::F16);
    row.vram_bytes.saturating_sub(included).saturating_add(kv)
}

fn sum(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(0u64, |sum, part| sum.saturating_add(*part))
}

/// `value` x `bytes` / `of`; 0 of nothing.
fn portion(value: u64, bytes: u64, of: u64) -> u64 {
    let product = u128::from(value) * u128::from(bytes) / u128::from(of.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

fn ratio_permille(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        1000
    } else {
        portion(1000, part, whole)
    }
}
