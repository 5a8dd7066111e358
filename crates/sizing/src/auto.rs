//! `quant: auto`: the guide's decision tree and use-case table as code, with the reason in words. It must not know
//! where the answer is used.

use crate::plan::{Cause, Fits, Input, Plan, Source, plan};
use crate::verdict::gb;
use crate::{GB, Hardware, Model, Quant};

/// What the user wants most; the rows of the guide's use-case table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    Production,
    Development,
    Edge,
    Research,
    Cost,
    Quality,
}

impl Objective {
    /// Every objective, in the order of the documentation.
    pub const ALL: [Objective; 6] = [
        Objective::Production,
        Objective::Development,
        Objective::Edge,
        Objective::Research,
        Objective::Cost,
        Objective::Quality,
    ];

    /// The value of `spec.objective`.
    pub const fn name(self) -> &'static str {
        match self {
            Objective::Production => "Production",
            Objective::Development => "Development",
            Objective::Edge => "Edge",
            Objective::Research => "Research",
            Objective::Cost => "Cost",
            Objective::Quality => "Quality",
        }
    }

    /// The objective called `name`, exactly.
    pub fn by_name(name: &str) -> Option<Objective> {
        Objective::ALL
            .into_iter()
            .find(|objective| objective.name() == name)
    }
}

/// The question `auto` answers.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub objective: Objective,
    pub model: &'static Model,
    pub hardware: &'static Hardware,
    /// Tokens; `None` for the model's default.
    pub context: Option<u64>,
    /// RAM budget in bytes; `None` when unknown.
    pub memory: Option<u64>,
    pub cpu_fallback: bool,
}

/// The quant chosen and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub quant: &'static crate::Quant,
    pub reason: String,
}

/// `quant: auto` was asked for a model that the guide does not describe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quant: auto knows the quants of Kimi K2 only; name one that {repo} has")]
pub struct NotInGuide {
    pub repo: &'static str,
}

/// One quant the guide points at for this question, and the guide's words for it.
struct Pointer {
    quant: &'static str,
    why: String,
}

/// Chooses a quant of the guide: the use-case table's row for the objective, then the decision tree's leaf, then the
/// next smaller quants. The first that fits with room (`fits: yes`) is taken; if none does, the smallest that runs at
/// all, since what must stream from disk streams least; if none runs, the smallest, which its plan then refuses.
pub fn choose(ask: &Ask) -> Result<Choice, NotInGuide> {
    if !ask.model.in_guide {
        return Err(NotInGuide {
            repo: ask.model.repo,
        });
    }
    let mut passed_over = Vec::new();
    let mut runs: Option<&'static Quant> = None;
    for pointer in pointers(ask) {
        let Some(quant) = Quant::by_name(pointer.quant) else {
            continue;
        };
        // The guide answers for the GPU; that the CPU may stand in for it must not change the answer, only allow it.
        let plan = plan_for(ask, quant, false);
        let runs_here = plan_for(ask, quant, ask.cpu_fallback).fits != Fits::No;
        if plan.fits == Fits::Yes && runs_here {
            let mut reason = format!("{}: {}", quant.name, pointer.why);
            append(&mut reason, &passed_over);
            return Ok(Choice { quant, reason });
        }
        let smaller = runs.is_none_or(|best| quant.size_bytes < best.size_bytes);
        if plan.fits != Fits::No && runs_here && smaller {
            runs = Some(quant);
        }
        passed_over.push(format!("{} {}", quant.name, shortfall(ask, &plan)));
    }
    let smallest = &Quant::all()[0];
    let (quant, words) = match runs {
        Some(quant) => (
            quant,
            "the smallest that runs; no quant fits with room to spare",
        ),
        None => (smallest, "the smallest; no quant of the guide fits"),
    };
    let mut reason = format!("{}: {words}", quant.name);
    append(&mut reason, &passed_over);
    Ok(Choice { quant, reason })
}

fn append(reason: &mut String, passed_over: &[String]) {
    if !passed_over.is_empty() {
        reason.push_str(". Passed over: ");
        reason.push_str(&passed_over.join("; "));
    }
}

/// What the guide points at, most specific first, ending in every smaller quant.
fn pointers(ask: &Ask) -> Vec<Pointer> {
    let mut pointers = vec![use_case(ask)];
    pointers.extend(tree_leaf(ask));
    let first = Quant::by_name(pointers[0].quant).map_or(u64::MAX, |quant| quant.size_bytes);
    for quant in Quant::all()
        .iter()
        .rev()
        .filter(|quant| quant.size_bytes < first)
    {
        if pointers.iter().all(|pointer| pointer.quant != quant.name) {
            let why = "the largest quant below the guide's choice that fits".to_owned();
            pointers.push(Pointer {
                quant: quant.name,
                why,
            });
        }
    }
    pointers
}

/// The guide's use-case table. It has no row for a CPU in production: the recommended quant stands in.
fn use_case(ask: &Ask) -> Pointer {
    let (quant, row) = match ask.objective {
        Objective::Development => ("UD-TQ1_0", "Development/Testing"),
        Objective::Production if ask.hardware.is_cpu() => {
            let why = "the quant the guide recommends for production (it has no row for a CPU)";
            return Pointer {
                quant: "UD-Q2_K_XL",
                why: why.to_owned(),
            };
        }
        Objective::Production if is_t4_class(ask.hardware) => ("UD-Q2_K_XL", "Production (T4)"),
        Objective::Production => ("UD-Q4_K_XL", "Production (A10+)"),
        Objective::Edge => ("UD-IQ1_S", "Edge Deployment"),
        Objective::Research => ("UD-Q5_K_XL", "Research"),
        Objective::Cost => ("UD-TQ1_0", "Cost-optimized"),
        Objective::Quality => ("UD-Q4_K_XL", "Quality-optimized"),
    };
    Pointer {
        quant,
        why: format!("the guide's choice for the use case {row}"),
    }
}

/// The guide's decision tree. Its first question is "Tesla T4 (16GB VRAM)?", so it has no answer for a CPU.
fn tree_leaf(ask: &Ask) -> Option<Pointer> {
    let (quant, path) = match ask.objective {
        _ if ask.hardware.is_cpu() => return None,
        Objective::Development | Objective::Edge | Objective::Cost if is_t4_class(ask.hardware) => {
            ("UD-TQ1_0", "T4, maximum efficiency")
        }
        Objective::Production | Objective::Quality | Objective::Research
            if is_t4_class(ask.hardware) =>
        {
            if ask.memory.is_none_or(|memory| memory >= TREE_RAM) {
                (
                    "UD-Q2_K_XL",
                    "T4, not maximum efficiency, 96 GB of RAM or more",
                )
            } else {
                (
                    "UD-TQ1_0",
                    "T4, not maximum efficiency, less than 96 GB of RAM",
                )
            }
        }
        Objective::Quality | Objective::Research => {
            ("UD-Q4_K_XL", "better than a T4, maximum quality")
        }
        // "No -> UD-Q2_K_XL" would be a larger quant than the use-case rows of these; the rows are more specific.
        Objective::Development | Objective::Edge | Objective::Cost => return None,
        Objective::Production => ("UD-Q2_K_XL", "better than a T4, not maximum quality"),
    };
    Some(Pointer {
        quant,
        why: format!("the leaf of the guide's decision tree for: {path}"),
    })
}

/// "Have 96GB+ RAM?"
const TREE_RAM: u64 = 96 * GB;

/// "Tesla T4 (16GB VRAM)?" asks for the memory, so a 16 GB V100 answers yes as well.
fn is_t4_class(hardware: &Hardware) -> bool {
    !hardware.is_cpu() && hardware.memory_bytes <= 16 * GB
}

fn plan_for(ask: &Ask, quant: &'static Quant, cpu_fallback: bool) -> Plan {
    plan(&Input {
        context: ask.context,
        memory: ask.memory,
        cpu_fallback,
        ..Input::new(
            Source::Catalogue {
                model: ask.model,
                quant,
            },
            ask.hardware,
        )
    })
}

/// Why a quant was passed over, in a few words with the numbers.
fn shortfall(ask: &Ask, plan: &Plan) -> String {
    let ram = plan.ram_floor_bytes.unwrap_or(plan.ram_bytes);
    match plan.cause {
        Cause::Fits => "fits".to_owned(),
        Cause::TightVram => format!(
            "is a tight fit (~{} of {} VRAM)",
            gb(plan.vram_bytes),
            gb(ask.hardware.memory_bytes)
        ),
        Cause::VramTooSmall => format!(
            "needs ~{} of VRAM, the {} has {}",
            gb(plan.vram_bytes),
            plan.hardware,
            gb(ask.hardware.memory_bytes)
        ),
        Cause::StreamsFromDisk | Cause::RamTooSmall => {
            format!(
                "asks for {} of RAM, there are {}",
                gb(ram),
                gb(ask.memory.unwrap_or(0))
            )
        }
        Cause::ContextTooLong | Cause::OutOfRange => plan.reason.clone(),
    }
}
