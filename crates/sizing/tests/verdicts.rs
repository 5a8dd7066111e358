//! The verdict: which check decides at which number, and that the words carry the numbers and a way out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use sizing::facts::{Class, ClassRow, ExpertSize};
use sizing::{Cause, Facts, Fits, GB, Hardware, Hyper, Input, Model, Plan, Quant, Source, plan};

fn t4(quant: &str, change: impl Fn(&mut Input<'static>)) -> Plan {
    let model = Model::by_name("Kimi-K2-Instruct").unwrap();
    let source = Source::Catalogue {
        model,
        quant: Quant::by_name(quant).unwrap(),
    };
    let mut input = Input::new(source, Hardware::by_name("T4").unwrap());
    change(&mut input);
    plan(&input)
}

/// The small model of the examples: 4 layers, 16 experts, 9 MB.
fn tiny() -> Facts {
    let row = |class, bytes| ClassRow {
        class,
        dtype: "Q4_K".to_owned(),
        count: 9,
        bytes,
    };
    Facts {
        repo: "kimi-operator/Kimi-Tiny-GGUF".to_owned(),
        quant: "Q4_K_M".to_owned(),
        path: "Q4_K_M".to_owned(),
        bytes: 9_099_456,
        hyper: Hyper {
            layers: 4,
            dense_layers: 1,
            hidden: 256,
            heads: 4,
            kv_lora_rank: 256,
            rope_dim: 32,
            experts: 16,
            experts_used: 4,
            shared_experts: 1,
            vocab: 4096,
        },
        classes: vec![
            row(Class::Expert, 5_000_000),
            row(Class::Attention, 2_500_000),
            row(Class::Embedding, 800_000),
        ],
        expert_sizes: vec![ExpertSize {
            bytes: 104_000,
            count: 48,
        }],
        ..support::iq3_xxs_facts()
    }
}

#[test]
fn catalogue_ram_is_comfortable_from_the_guides_floor() {
    let at = |gb: u64| t4("UD-Q2_K_XL", |input| input.memory = Some(gb * GB));
    assert_eq!((at(8).fits, at(8).cause), (Fits::No, Cause::RamTooSmall));
    assert_eq!(
        (at(10).fits, at(10).cause),
        (Fits::Tight, Cause::StreamsFromDisk)
    );
    assert_eq!(at(95).cause, Cause::StreamsFromDisk);
    assert_eq!((at(96).fits, at(96).cause), (Fits::Yes, Cause::Fits));
    assert!(
        at(96)
            .reason
            .contains("96 GB of RAM is above the floor of 96 GB"),
        "{}",
        at(96).reason
    );
    assert!(
        at(96).reason.contains("% of them stay in memory"),
        "{}",
        at(96).reason
    );
    assert!(
        at(400).reason.contains("all experts stay in memory"),
        "{}",
        at(400).reason
    );
    assert!(at(8).reason.contains("9 GB of RAM"), "{}", at(8).reason);
}

#[test]
fn exact_ram_is_comfortable_only_when_everything_is_resident() {
    let facts = support::iq3_xxs_facts();
    let hardware = Hardware::by_name("A100").unwrap();
    let at = |memory| {
        plan(&Input {
            memory: Some(memory),
            ..Input::new(Source::Exact(&facts), hardware)
        })
    };
    let needed = at(GB).ram_bytes;
    assert_eq!(at(needed - 1).cause, Cause::StreamsFromDisk);
    assert_eq!(at(needed).cause, Cause::Fits);
    assert_eq!(at(needed).ram_floor_bytes, None);
    assert_eq!(at(needed).catalogue_vram_bytes, Some(13 * GB));
    let too_small = at(at(GB).ram_min_bytes - 1);
    assert_eq!(too_small.fits, Fits::No);
    assert!(
        too_small.reason.contains("largest quant that fits"),
        "{}",
        too_small.reason
    );
}

#[test]
fn context_moves_vram_by_70272_bytes_a_token() {
    let at = |tokens| t4("UD-Q2_K_XL", |input| input.context = Some(tokens));
    assert_eq!(at(16_384).vram_bytes, 12 * GB);
    assert_eq!(at(17_384).vram_bytes, 12 * GB + 70_272_000);
    assert_eq!(at(131_072).fits, Fits::No);
    // 16 GB hold 12 GB and (16 - 12) GB / 70,272 more tokens: 73,305, in whole 1024.
    assert!(
        at(131_072)
            .reason
            .contains("a context of at most 72704 tokens fits"),
        "{}",
        at(131_072).reason
    );
    assert_ne!(at(72_704).fits, Fits::No);
    assert_eq!(at(131_073).cause, Cause::ContextTooLong);
    assert!(
        at(131_073)
            .reason
            .contains("longer than the model's 131072"),
        "{}",
        at(131_073).reason
    );
}

#[test]
fn cpu_fallback_asks_for_ram_that_holds_everything() {
    let gpu = t4("UD-TQ1_0", |_| ());
    let fallback = t4("UD-TQ1_0", |input| input.cpu_fallback = true);
    assert_eq!(gpu.vram_bytes, fallback.vram_bytes);
    assert!(fallback.ram_bytes > gpu.ram_bytes + 14 * GB);
    let moved = fallback.ram_min_bytes - gpu.ram_min_bytes;
    assert_eq!(fallback.ram_floor_bytes, Some(64 * GB + moved));
    // What cannot fit the GPU asked for is refused all the same.
    assert_eq!(
        t4("UD-Q5_K_XL", |input| input.cpu_fallback = true).fits,
        Fits::No
    );
}

#[test]
fn the_small_model_fits_a_laptop() {
    let facts = tiny();
    let cpu = Hardware::by_name("CPU").unwrap();
    let plan = plan(&Input {
        memory: Some(2 * GB),
        ..Input::new(Source::Exact(&facts), cpu)
    });
    assert_eq!(plan.fits, Fits::Yes, "{}", plan.reason);
    assert_eq!(
        (plan.storage_bytes, plan.vram_bytes, plan.gpu_experts),
        (GB, 0, 0)
    );
    assert!(plan.ram_bytes < GB, "{}", plan.ram_bytes);
    assert_eq!(plan.catalogue_vram_bytes, None);
}

#[test]
fn numbers_beyond_u64_are_refused_in_words() {
    let plan = t4("UD-TQ1_0", |input| input.headroom = Some(u64::MAX));
    assert_eq!((plan.fits, plan.cause), (Fits::No, Cause::OutOfRange));
    assert!(plan.reason.contains("2^64"), "{}", plan.reason);
}

/// The field names that `status.plan` and scripts rely on.
#[test]
fn json_field_names() {
    let json = serde_json::to_value(t4("UD-Q2_K_XL", |_| ())).unwrap();
    for field in [
        "basis",
        "contextLength",
        "storageBytes",
        "ramBytes",
        "ramMinBytes",
        "vramBytes",
        "catalogueVramBytes",
        "gpuExperts",
        "downloadSeconds",
        "milliTokensPerSecond",
        "fits",
        "reason",
    ] {
        assert!(json.get(field).is_some(), "{field} is missing in {json}");
    }
    assert_eq!(
        (json["fits"].as_str(), json["basis"].as_str()),
        (Some("yes"), Some("catalogue"))
    );
}

#[test]
fn a_cpu_plan_refused_for_ram_asks_for_ram_or_a_smaller_quant() {
    let on_cpu = |quant, memory| {
        t4(quant, |input| {
            input.hardware = Hardware::by_name("CPU").unwrap();
            input.memory = Some(memory);
        })
    };
    let refused = on_cpu("UD-Q5_K_XL", 20 * GB);
    assert_eq!(refused.cause, Cause::RamTooSmall, "{}", refused.reason);
    let words = &refused.reason;
    assert!(
        words.contains("the budget is 20 GB; give it at least"),
        "{words}"
    );
    assert!(words.contains("largest quant that fits"), "{words}");
    assert!(!words.contains("hardware"), "{words}");

    // The advice suffices.
    let advised = refused.ram_min_bytes.div_ceil(GB / 10) * (GB / 10);
    let streams = on_cpu("UD-Q5_K_XL", advised);
    assert_eq!(streams.cause, Cause::StreamsFromDisk);
    assert!(
        streams
            .reason
            .contains("to hold every expert and the budget is"),
        "{}",
        streams.reason
    );
}
