//! Golden: docs/plan-table.md, the guide's six quants on five kinds of hardware. `UPDATE_GOLDEN=1` rewrites it; without
//! it the committed file must equal what the formulae say today.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fmt::Write as _;

use sizing::{Cause, Fits, GB, Hardware, Input, Model, Plan, Quant, Source, plan};
use support::{gb, golden_section, iq3_xxs_facts};

const HARDWARE: [&str; 5] = ["T4", "A10", "A100", "A100-80GB", "CPU"];

fn input(quant: &'static Quant, hardware: &'static Hardware) -> Input<'static> {
    let model = Model::by_name("Kimi-K2-Instruct").unwrap();
    Input::new(Source::Catalogue { model, quant }, hardware)
}

fn minutes(seconds: u64) -> String {
    let tenths = (seconds + 3) / 6;
    format!("{}.{} min", tenths / 10, tenths % 10)
}

fn hours(seconds: u64) -> String {
    let hundredths = (seconds + 18) / 36;
    format!("{}.{:02} h", hundredths / 100, hundredths % 100)
}

fn speed(plan: &Plan) -> String {
    let milli = plan.milli_tokens_per_second.unwrap();
    format!("{}.{:02}", milli / 1000, milli % 1000 / 10)
}

fn fits(plan: &Plan) -> &'static str {
    match plan.fits {
        Fits::Yes => "yes",
        Fits::Tight => "tight",
        Fits::No => "**no**",
    }
}

fn volumes_and_downloads(text: &mut String) {
    text.push_str("\n## Volume and download, on any hardware\n\n");
    text.push_str("| Quant | Size [g] | `storageBytes` [S] | Guide | `downloadSeconds` at 1 Gbps [D] | Guide | at 100 Mbps [D] | Guide |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    let guide = [
        ("UD-TQ1_0", "300 GB", "~35 min", "~5.5 h"),
        ("UD-Q2_K_XL", "450 GB", "~55 min", "~8.5 h"),
        ("UD-Q4_K_XL", "-", "~85 min", "~13 h"),
    ];
    for quant in Quant::all() {
        let base = input(quant, Hardware::by_name("T4").unwrap());
        let fast = plan(&base);
        let slow = plan(&Input {
            bandwidth_bits: 100_000_000,
            ..base
        });
        let said = guide
            .iter()
            .find(|row| row.0 == quant.name)
            .unwrap_or(&("", "-", "-", "-"));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} s = {} | {} | {} s = {} | {} |",
            quant.name,
            gb(quant.size_bytes),
            gb(fast.storage_bytes),
            said.1,
            fast.download_seconds,
            minutes(fast.download_seconds),
            said.2,
            slow.download_seconds,
            hours(slow.download_seconds),
            said.3,
        )
        .unwrap();
    }
}

fn one_hardware(text: &mut String, hardware: &'static Hardware) {
    let title = if hardware.is_cpu() {
        "CPU (no VRAM; everything in RAM)".to_owned()
    } else {
        format!("{} ({} of VRAM)", hardware.name, gb(hardware.memory_bytes))
    };
    writeln!(text, "\n## {title}\n").unwrap();
    text.push_str("| Quant | `fits` | `vramBytes` | `gpuExperts` [E] | RAM floor [g] | `ramMinBytes` [R] | `ramBytes` [R] | tok/s at the floor [T] | tok/s, all in memory [T] | Guide's claim |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    let mut refusals = String::new();
    for quant in Quant::all() {
        let base = input(quant, hardware);
        let at_floor = plan(&base);
        let resident = plan(&Input {
            memory: Some(u64::MAX / 2),
            ..base
        });
        assert_eq!(at_floor.vram_bytes == 0, hardware.is_cpu());
        let claim = match quant.speed_claim {
            (tenths, on) if on == hardware.name => format!("~{}.{}", tenths / 10, tenths % 10),
            _ => "-".to_owned(),
        };
        let refused = at_floor.fits == Fits::No;
        let unless_refused = |words: String| if refused { "-".to_owned() } else { words };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            quant.name,
            fits(&at_floor),
            if hardware.is_cpu() {
                "0".to_owned()
            } else {
                format!("{} [g]", gb(at_floor.vram_bytes))
            },
            unless_refused(at_floor.gpu_experts.to_string()),
            at_floor.ram_floor_bytes.map_or("-".to_owned(), gb),
            unless_refused(gb(at_floor.ram_min_bytes)),
            unless_refused(gb(at_floor.ram_bytes)),
            if at_floor.ram_floor_bytes.is_some() {
                unless_refused(speed(&at_floor))
            } else {
                "-".to_owned()
            },
            unless_refused(speed(&resident)),
            claim,
        )
        .unwrap();
        if refused {
            writeln!(refusals, "- {}", at_floor.reason).unwrap();
        }
    }
    if !refusals.is_empty() {
        write!(text, "\nRefused, in the words of `reason`:\n\n{refusals}").unwrap();
    }
}

fn both_figures(text: &mut String) {
    text.push_str("\n## Catalogue and exact, side by side\n\nThe published UD-IQ3_XXS of Kimi-K2-Instruct, from its tensor table (see docs/sizing.md), on a T4 with 128 GB:\n\n");
    text.push_str("| `basis` | `fits` | `vramBytes` | `catalogueVramBytes` | `gpuExperts` | `ramMinBytes` | `ramBytes` | `storageBytes` |\n|---|---|---|---|---|---|---|---|\n");
    let facts = iq3_xxs_facts();
    let t4 = Hardware::by_name("T4").unwrap();
    let catalogue = input(Quant::by_name("UD-IQ3_XXS").unwrap(), t4);
    let exact = Input::new(Source::Exact(&facts), t4);
    for (basis, base) in [("catalogue", catalogue), ("exact", exact)] {
        let plan = plan(&Input {
            memory: Some(128 * GB),
            ..base
        });
        writeln!(
            text,
            "| {basis} | {} | {} | {} | {} | {} | {} | {} |",
            fits(&plan),
            gb(plan.vram_bytes),
            gb(plan.catalogue_vram_bytes.unwrap()),
            plan.gpu_experts,
            gb(plan.ram_min_bytes),
            gb(plan.ram_bytes),
            gb(plan.storage_bytes),
        )
        .unwrap();
    }
}

#[test]
fn golden_plan_table() {
    let mut text = String::new();
    volumes_and_downloads(&mut text);
    for name in HARDWARE {
        one_hardware(&mut text, Hardware::by_name(name).unwrap());
    }
    both_figures(&mut text);
    text.push('\n');
    golden_section("docs/plan-table.md", "plans", &text);
}

/// The guide's column "T4 Compatible": yes, yes, yes, tight fit, no (18GB), no (23GB).
#[test]
fn the_guides_t4_column_holds() {
    let t4 = Hardware::by_name("T4").unwrap();
    let verdicts: Vec<Fits> = Quant::all()
        .iter()
        .map(|quant| plan(&input(quant, t4)).fits)
        .collect();
    assert_eq!(
        verdicts,
        [
            Fits::Yes,
            Fits::Yes,
            Fits::Yes,
            Fits::Tight,
            Fits::No,
            Fits::No
        ]
    );
}

#[test]
fn a_refusal_carries_the_numbers_and_the_largest_quant_that_fits() {
    let q4 = plan(&input(
        Quant::by_name("UD-Q4_K_XL").unwrap(),
        Hardware::by_name("T4").unwrap(),
    ));
    assert_eq!(q4.cause, Cause::VramTooSmall);
    for words in [
        "~18 GB",
        "16 GB",
        "largest quant that fits is UD-IQ3_XXS (tight)",
        "is L4",
    ] {
        assert!(
            q4.reason.contains(words),
            "{words:?} not in {:?}",
            q4.reason
        );
    }
}

/// "Single quant: Model size + 50GB" for 245 GB and 381 GB.
#[test]
fn the_guides_volumes_hold() {
    let t4 = Hardware::by_name("T4").unwrap();
    let volume = |name| plan(&input(Quant::by_name(name).unwrap(), t4)).storage_bytes;
    assert_eq!(
        (volume("UD-TQ1_0"), volume("UD-Q2_K_XL")),
        (300 * GB, 450 * GB)
    );
}
