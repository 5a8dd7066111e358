//! `quant: auto` against the guide: every path of its decision tree, every row of its use-case table, and the walk down
//! to what fits. The generated table of docs/quants.md shows the rest.
#![allow(clippy::unwrap_used, clippy::panic)]

use sizing::{Ask, Choice, GB, Hardware, Model, Objective, choose};

fn ask(objective: Objective, hardware: &str, memory_gb: Option<u64>) -> Choice {
    choose(&Ask {
        objective,
        model: Model::by_name("Kimi-K2-Thinking").unwrap(),
        hardware: Hardware::by_name(hardware).unwrap(),
        context: None,
        memory: memory_gb.map(|gb| gb * GB),
        cpu_fallback: false,
    })
    .unwrap()
}

/// One row per path or table line: who asks, on what, with how much RAM, the guide's answer, words of the reason.
type Row = (
    Objective,
    &'static str,
    Option<u64>,
    &'static str,
    &'static str,
);

fn check(rows: &[Row]) {
    for (objective, hardware, memory, quant, words) in rows {
        let choice = ask(*objective, hardware, *memory);
        let case = format!("{objective:?} on {hardware} with {memory:?} GB");
        assert_eq!(choice.quant.name, *quant, "{case}: {}", choice.reason);
        assert!(
            choice.reason.contains(words),
            "{case}: {words:?} not in {:?}",
            choice.reason
        );
    }
}

#[test]
fn golden_every_row_of_the_use_case_table() {
    use Objective::*;
    check(&[
        (
            Development,
            "T4",
            Some(64),
            "UD-TQ1_0",
            "use case Development/Testing",
        ),
        (
            Production,
            "T4",
            Some(96),
            "UD-Q2_K_XL",
            "use case Production (T4)",
        ),
        (
            Production,
            "A10",
            Some(192),
            "UD-Q4_K_XL",
            "use case Production (A10+)",
        ),
        (Edge, "T4", Some(64), "UD-IQ1_S", "use case Edge Deployment"),
        (
            Research,
            "A100",
            Some(256),
            "UD-Q5_K_XL",
            "use case Research",
        ),
        (Cost, "A10", Some(64), "UD-TQ1_0", "use case Cost-optimized"),
        (
            Quality,
            "A10",
            Some(192),
            "UD-Q4_K_XL",
            "use case Quality-optimized",
        ),
    ]);
}

#[test]
fn golden_every_path_of_the_decision_tree() {
    use Objective::*;
    check(&[
        // T4? yes -> maximum efficiency? yes
        (Cost, "T4", Some(96), "UD-TQ1_0", "Cost-optimized"),
        // T4? yes -> maximum efficiency? no -> 96 GB or more? yes
        (Production, "T4", Some(96), "UD-Q2_K_XL", "Production (T4)"),
        (
            Quality,
            "T4",
            Some(256),
            "UD-Q2_K_XL",
            "T4, not maximum efficiency, 96 GB of RAM or more",
        ),
        (
            Research,
            "V100-16GB",
            Some(128),
            "UD-Q2_K_XL",
            "96 GB of RAM or more",
        ),
        // T4? yes -> maximum efficiency? no -> 96 GB or more? no
        (
            Production,
            "T4",
            Some(95),
            "UD-TQ1_0",
            "T4, not maximum efficiency, less than 96 GB of RAM",
        ),
        (
            Quality,
            "T4",
            Some(64),
            "UD-TQ1_0",
            "less than 96 GB of RAM",
        ),
        // T4? no -> maximum quality? yes: "UD-Q4_K_XL or UD-Q5_K_XL"
        (Research, "A100-80GB", Some(256), "UD-Q5_K_XL", "Research"),
        (
            Research,
            "A100-80GB",
            Some(255),
            "UD-Q4_K_XL",
            "better than a T4, maximum quality",
        ),
        // T4? no -> maximum quality? no
        (
            Production,
            "A10",
            Some(191),
            "UD-Q2_K_XL",
            "better than a T4, not maximum quality",
        ),
    ]);
}

#[test]
fn the_choice_fits_and_says_what_it_passed_over() {
    use Objective::*;
    check(&[
        // 23 of 24 GB is tight, so the tree's other leaf is taken.
        (
            Research,
            "A10",
            Some(256),
            "UD-Q4_K_XL",
            "UD-Q5_K_XL is a tight fit (~23 GB of 24 GB VRAM)",
        ),
        (
            Quality,
            "T4",
            Some(256),
            "UD-Q2_K_XL",
            "UD-Q4_K_XL needs ~18 GB of VRAM, the T4 has 16 GB",
        ),
        (
            Quality,
            "A10",
            Some(130),
            "UD-IQ3_XXS",
            "UD-Q4_K_XL asks for 192 GB of RAM, there are 130 GB",
        ),
        (
            Production,
            "A10",
            Some(64),
            "UD-IQ1_S",
            "the largest quant below the guide's choice",
        ),
        // Nothing fits with room: the smallest that runs streams least; then the smallest, which its plan refuses.
        (
            Production,
            "A10",
            Some(32),
            "UD-TQ1_0",
            "no quant fits with room to spare",
        ),
        (
            Edge,
            "T4",
            Some(2),
            "UD-TQ1_0",
            "the smallest; no quant of the guide fits",
        ),
        // On the CPU everything must be in RAM to fit with room.
        (
            Production,
            "CPU",
            Some(384),
            "UD-Q2_K_XL",
            "no row for a CPU",
        ),
        (Quality, "CPU", Some(768), "UD-Q4_K_XL", "Quality-optimized"),
        (
            Production,
            "CPU",
            Some(300),
            "UD-IQ1_S",
            "UD-Q2_K_XL asks for 383.3 GB of RAM, there are 300 GB",
        ),
        (
            Production,
            "CPU",
            Some(128),
            "UD-TQ1_0",
            "no quant fits with room to spare",
        ),
        // RAM unknown: the guide's floors are taken for granted.
        (Production, "H100", None, "UD-Q4_K_XL", "Production (A10+)"),
    ]);
}

#[test]
fn a_model_outside_the_guide_is_an_error_with_a_next_step() {
    let error = choose(&Ask {
        objective: Objective::Production,
        model: Model::by_name("Moonlight-16B-A3B-Instruct").unwrap(),
        hardware: Hardware::by_name("T4").unwrap(),
        context: None,
        memory: None,
        cpu_fallback: false,
    })
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("name one that gabriellarson/Moonlight-16B-A3B-Instruct-GGUF has")
    );
}

/// The guide answers for the GPU that was asked for, whoever serves meanwhile.
#[test]
fn cpu_fallback_does_not_change_the_answer() {
    for (objective, memory, quant) in [
        (Objective::Edge, 64, "UD-IQ1_S"),
        (Objective::Production, 96, "UD-Q2_K_XL"),
    ] {
        let choice = choose(&Ask {
            objective,
            model: Model::by_name("Kimi-K2-Instruct").unwrap(),
            hardware: Hardware::by_name("T4").unwrap(),
            context: None,
            memory: Some(memory * GB),
            cpu_fallback: true,
        });
        assert_eq!(choice.unwrap().quant.name, quant);
    }
}
