//! Golden: the tables that docs/quants.md and docs/sizing.md show of the crate's rows, and what `quant: auto` answers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fmt::Write as _;

use sizing::{Ask, GB, Hardware, Model, Objective, Quant, choose};
use support::{gb, golden_section};

fn percent(permille: Option<u32>) -> String {
    permille.map_or("-".to_owned(), |n| format!("{}.{} %", n / 10, n % 10))
}

/// One test per document: two tests would rewrite the same file at the same time.
#[test]
fn golden_quants_document() {
    golden_section("docs/quants.md", "quants", &quants());
    golden_section("docs/quants.md", "auto", &auto());
}

#[test]
fn golden_sizing_document() {
    golden_section("docs/sizing.md", "hardware", &hardware());
    golden_section("docs/sizing.md", "models", &models());
}

fn quants() -> String {
    let mut text = String::from(
        "| Quant | Bits | Size | VRAM with offload | RAM floor | Use case | Claimed quality | Claimed Aider Polyglot | Claimed MMLU | Claimed speed |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for quant in Quant::all() {
        let (tenths, gpu) = quant.speed_claim;
        writeln!(
            text,
            "| `{}` | {}.{:02} ({} \"MoE/non-MoE\") | {} | ~{} | {} | {} | {} | {} | {} | ~{}.{} tok/s on {gpu} |",
            quant.name,
            quant.bits_hundredths / 100,
            quant.bits_hundredths % 100,
            quant.effective_bits,
            gb(quant.size_bytes),
            gb(quant.vram_bytes),
            gb(quant.ram_floor_bytes),
            quant.use_case,
            quant.quality,
            percent(quant.aider_permille),
            percent(quant.mmlu_permille),
            tenths / 10,
            tenths % 10,
        )
        .unwrap();
    }
    text
}

fn auto() -> String {
    const COLUMNS: [(&str, Option<u64>); 9] = [
        ("T4", Some(64)),
        ("T4", Some(96)),
        ("T4", Some(256)),
        ("A10", Some(96)),
        ("A10", Some(192)),
        ("A100", Some(256)),
        ("CPU", Some(128)),
        ("CPU", Some(384)),
        ("CPU", Some(768)),
    ];
    let mut text = String::from("| `objective` |");
    for (hardware, memory) in COLUMNS {
        write!(text, " {hardware}, {} GB |", memory.unwrap()).unwrap();
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(COLUMNS.len()));
    text.push('\n');
    for objective in Objective::ALL {
        write!(text, "| {} |", objective.name()).unwrap();
        for (hardware, memory) in COLUMNS {
            let choice = choose(&Ask {
                objective,
                model: Model::by_name("Kimi-K2-Instruct").unwrap(),
                hardware: Hardware::by_name(hardware).unwrap(),
                context: None,
                memory: memory.map(|gb| gb * GB),
                cpu_fallback: false,
            });
            write!(
                text,
                " {} |",
                choice.unwrap().quant.name.trim_start_matches("UD-")
            )
            .unwrap();
        }
        text.push('\n');
    }
    text
}

fn hardware() -> String {
    let mut text = String::from(
        "| `hardware` | VRAM | Bandwidth | Compute capability | `nvidia.com/gpu.product` |\n|---|---|---|---|---|\n",
    );
    for row in Hardware::all() {
        let capability = row
            .compute_capability
            .map_or("-".to_owned(), |(a, b)| format!("{a}.{b}"));
        let labels: Vec<String> = row
            .node_labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        writeln!(
            text,
            "| {} | {} | {} GB/s | {capability} | {} |",
            row.name,
            if row.is_cpu() {
                "-".to_owned()
            } else {
                gb(row.memory_bytes)
            },
            row.bandwidth / GB,
            if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join(", ")
            },
        )
        .unwrap();
    }
    text
}

fn models() -> String {
    let mut text = String::from(
        "| `model` | Repository | Longest context | Default | Layers | Experts (used) | Always active | Routed | In the guide |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let billions = |n: u64| {
        let hundredths = (n + 5_000_000) / 10_000_000;
        format!("{}.{:02} B", hundredths / 100, hundredths % 100)
    };
    for model in Model::all() {
        writeln!(
            text,
            "| {} | `{}` | {} | {} | {} | {} ({}) | {} | {} | {} |",
            model.name,
            model.repo,
            model.max_context,
            model.default_context(),
            model.hyper.layers,
            model.hyper.experts,
            model.hyper.experts_used,
            billions(model.parameters.always_active),
            billions(model.parameters.routed),
            if model.in_guide { "yes" } else { "no" },
        )
        .unwrap();
    }
    text
}
