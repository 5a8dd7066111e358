//! From numbers to a verdict and its words. The checks are ordered and the first that fails decides. It must not
//! compute sizes of its own.

use std::fmt::Write as _;

use crate::plan::{Cause, Fits, Input, Numbers, Source, numbers};
use crate::{GB, Hardware, Model, Quant};

/// Above four fifths of the VRAM a plan is tight: the guide calls 12 of 16 GB compatible and 13 of 16 "tight fit".
const TIGHT: (u128, u128) = (4, 5);

/// The first check that decides, hardest first.
pub(crate) fn cause(input: &Input<'_>, n: &Numbers) -> Cause {
    let memory = input.hardware.memory_bytes;
    let comfortable_ram = n.ram_floor.map_or(n.ram, |floor| floor.min(n.ram));
    if [n.vram, n.ram, n.storage].contains(&u64::MAX) {
        Cause::OutOfRange
    } else if n.context > n.max_context {
        Cause::ContextTooLong
    } else if n.vram > memory {
        Cause::VramTooSmall
    } else if input.memory.is_some_and(|budget| budget < n.ram_min) {
        Cause::RamTooSmall
    } else if input.memory.is_some_and(|budget| budget < comfortable_ram) {
        Cause::StreamsFromDisk
    } else if u128::from(n.vram) * TIGHT.1 > u128::from(memory) * TIGHT.0 {
        Cause::TightVram
    } else {
        Cause::Fits
    }
}

/// The verdict that a cause means.
pub(crate) fn fits(cause: Cause) -> Fits {
    match cause {
        Cause::Fits => Fits::Yes,
        Cause::TightVram | Cause::StreamsFromDisk => Fits::Tight,
        Cause::ContextTooLong | Cause::VramTooSmall | Cause::RamTooSmall | Cause::OutOfRange => {
            Fits::No
        }
    }
}

/// The verdict in words, with its numbers.
pub(crate) fn words(input: &Input<'_>, n: &Numbers, cause: Cause) -> String {
    let quant = input.source.quant_name();
    let hardware = input.hardware.name;
    let tilde = if matches!(input.source, Source::Catalogue { .. }) {
        "~"
    } else {
        ""
    };
    let vram = format!("{tilde}{}", gb(n.vram));
    let memory = gb(input.hardware.memory_bytes);
    match cause {
        Cause::Fits => {
            let place = if input.hardware.is_cpu() {
                "runs on the CPU".to_owned()
            } else {
                format!("needs {vram} of the {hardware}'s {memory} VRAM")
            };
            format!("{quant} {place}; {}", ram_words(input, n))
        }
        Cause::TightVram => format!(
            "{quant} needs {vram} of the {hardware}'s {memory} VRAM, which leaves less than a fifth; {}",
            ram_words(input, n)
        ),
        Cause::StreamsFromDisk => format!(
            "{quant} needs {} of RAM to hold every expert and the budget is {}: {}.{} % of the experts stay in memory, \
             the rest is read from disk for every token",
            gb(n.ram),
            gb(input.memory.unwrap_or(0)),
            n.resident_permille / 10,
            n.resident_permille % 10,
        ),
        Cause::ContextTooLong => format!(
            "a context of {} tokens is longer than the model's {}; set serving.contextLength to at most that",
            n.context, n.max_context
        ),
        Cause::VramTooSmall => format!(
            "{quant} needs {vram} of VRAM and the {hardware} has {memory}; {}",
            or_more_memory(&ways_out(input, n))
        ),
        Cause::RamTooSmall => format!(
            "{quant} needs at least {} of RAM to stream its experts from disk ({} to hold them) and the budget is {}; {}",
            gb_up(n.ram_min),
            gb(n.ram),
            gb(input.memory.unwrap_or(0)),
            more_ram_or(&ways_out(input, n), n)
        ),
        Cause::OutOfRange => {
            "the sizes given add up beyond 2^64 bytes; check context, headroom and the file's header".to_owned()
        }
    }
}

fn ram_words(input: &Input<'_>, n: &Numbers) -> String {
    match (input.memory, n.ram_floor) {
        (Some(budget), _) if budget >= n.ram => {
            format!(
                "all experts stay in memory ({} of {} RAM)",
                gb(n.ram),
                gb(budget)
            )
        }
        (Some(budget), Some(floor)) => format!(
            "{} of RAM is above the floor of {}, but {} would hold every expert: {}.{} % of them stay in memory",
            gb(budget),
            gb(floor),
            gb(n.ram),
            n.resident_permille / 10,
            n.resident_permille % 10
        ),
        (_, Some(floor)) => format!(
            "RAM not checked: the floor is {}, {} holds every expert",
            gb(floor),
            gb(n.ram)
        ),
        (_, None) => format!("RAM not checked: {} holds everything", gb(n.ram)),
    }
}

/// The ways out of too little VRAM.
fn or_more_memory(ways: &[String]) -> String {
    if ways.is_empty() {
        "give it more memory".to_owned()
    } else {
        ways.join("; ")
    }
}

/// The ways out of too little RAM: RAM itself comes first.
fn more_ram_or(ways: &[String], n: &Numbers) -> String {
    let mut text = format!("give it at least {} of RAM", gb_up(n.ram_min));
    for way in ways {
        let _ = write!(text, "; {way}");
    }
    text
}

/// What to change so that it fits: a smaller quant, a shorter context, other hardware.
fn ways_out(input: &Input<'_>, n: &Numbers) -> Vec<String> {
    let mut ways = Vec::new();
    if let Some((quant, tight)) = largest_quant_that_fits(input, n) {
        ways.push(format!(
            "the largest quant that fits is {}{}",
            quant.name,
            if tight { " (tight)" } else { "" }
        ));
    }
    if let Some(context) = longest_context_that_fits(input, n) {
        ways.push(format!("a context of at most {context} tokens fits"));
    }
    if let Some(hardware) = smallest_hardware_that_fits(input) {
        ways.push(format!(
            "the smallest hardware that holds it is {}",
            hardware.name
        ));
    }
    ways
}

/// Largest quant of the guide, by size, that is smaller than this one and not refused.
fn largest_quant_that_fits(input: &Input<'_>, n: &Numbers) -> Option<(&'static Quant, bool)> {
    let model = match input.source {
        Source::Catalogue { model, .. } => model,
        Source::Exact(facts) => Model::by_repo(&facts.repo)?,
    };
    if !model.in_guide {
        return None;
    }
    let name = input.source.quant_name();
    let smaller = |quant: &&Quant| quant.size_bytes < n.size && quant.name != name;
    Quant::all().iter().rev().filter(smaller).find_map(|quant| {
        let candidate = Input {
            source: Source::Catalogue { model, quant },
            ..*input
        };
        match fits(cause(&candidate, &numbers(&candidate))) {
            Fits::Yes => Some((quant, false)),
            Fits::Tight => Some((quant, true)),
            Fits::No => None,
        }
    })
}

/// Longest context with the same quant, if KV cache alone is what does not fit. In whole thousands of tokens.
fn longest_context_that_fits(input: &Input<'_>, n: &Numbers) -> Option<u64> {
    let over = n
        .vram
        .checked_sub(input.hardware.memory_bytes)
        .filter(|over| *over > 0)?;
    let tokens = over.div_ceil(n.kv_per_token.max(1));
    let context = n.context.checked_sub(tokens)? / 1024 * 1024;
    let candidate = Input {
        context: Some(context),
        ..*input
    };
    let fits_now = fits(cause(&candidate, &numbers(&candidate))) != Fits::No;
    (context > 0 && fits_now).then_some(context)
}

/// GPU with the least memory that takes the quant as it is. Who asked for a CPU is not sent to buy a GPU.
fn smallest_hardware_that_fits(input: &Input<'_>) -> Option<&'static Hardware> {
    if input.hardware.is_cpu() {
        return None;
    }
    Hardware::all()
        .iter()
        .filter(|hardware| !hardware.is_cpu())
        .filter(|hardware| {
            let candidate = Input { hardware, ..*input };
            fits(cause(&candidate, &numbers(&candidate))) != Fits::No
        })
        .min_by_key(|hardware| hardware.memory_bytes)
}

/// As [`gb`], never less than `bytes`: for advice that must suffice.
fn gb_up(bytes: u64) -> String {
    gb(bytes.div_ceil(GB / 10).saturating_mul(GB / 10))
}

/// Bytes as GB with one decimal, without it when whole.
pub(crate) fn gb(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + u128::from(GB) / 2) / u128::from(GB);
    match (tenths / 10, tenths % 10) {
        (0, 0) => format!("{} MB", bytes.div_ceil(crate::MB)),
        (whole, 0) => format!("{whole} GB"),
        (whole, tenth) => format!("{whole}.{tenth} GB"),
    }
}
