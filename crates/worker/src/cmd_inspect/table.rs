//! The summary as a table for people. It must not know where it came from.

use std::fmt::Write as _;

use sizing::Fits;

use super::Summary;

/// Characters of a metadata value that are shown.
const VALUE: usize = 64;

pub(super) fn table(summary: &Summary) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    head(&mut out, summary)?;
    classes(&mut out, summary)?;
    serving(&mut out, summary)?;
    shards(&mut out, summary)?;
    writeln!(out, "\nMETADATA")?;
    for (key, value) in &summary.metadata {
        let text = value.as_str().map_or(value.to_string(), str::to_owned);
        let line = text.replace(char::is_control, " ");
        let shown: String = line.chars().take(VALUE).collect();
        let more = if shown.len() < line.len() { "…" } else { "" };
        writeln!(out, "{key:<52}{shown}{more}")?;
    }
    Ok(out)
}

fn head(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let bits = |bits: Option<f64>| bits.map_or("-".to_owned(), |bits| format!("{bits:.3}"));
    let context = summary
        .context_length
        .map_or("unknown".to_owned(), |tokens| format!("{tokens} tokens"));
    writeln!(out, "name             {}", summary.name)?;
    writeln!(out, "architecture     {}", summary.architecture)?;
    writeln!(out, "file type        {}", summary.file_type)?;
    writeln!(out, "parameters       {}", short(summary.parameters))?;
    writeln!(out, "context          {context}")?;
    writeln!(
        out,
        "size             {}B in {} file(s)",
        short(summary.bytes),
        summary.shards.len()
    )?;
    writeln!(
        out,
        "bits per weight  {} overall, {} experts, {} other",
        bits(summary.bits_per_weight.overall),
        bits(summary.bits_per_weight.experts),
        bits(summary.bits_per_weight.other),
    )
}

fn classes(out: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<14}{:<9}{:>8}{:>14}{:>18}{:>8}",
        "CLASS", "TYPE", "TENSORS", "PARAMETERS", "BYTES", "SHARE"
    )?;
    let all: u64 = summary.classes.iter().map(|row| row.bytes).sum();
    for row in &summary.classes {
        let share = row.bytes as f64 * 100.0 / all.max(1) as f64;
        writeln!(
            out,
            "{:<14}{:<9}{:>8}{:>14}{:>18}{share:>7.1}%",
            format!("{:?}", row.class),
            row.dtype,
            row.count,
            short(row.parameters),
            row.bytes,
        )?;
    }
    Ok(())
}

fn serving(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if let Some(reason) = &summary.not_servable {
        return writeln!(out, "\nnot servable as it is: {reason}");
    }
    let Some(first) = summary.serving.first() else {
        return Ok(());
    };
    writeln!(
        out,
        "\nserving with {} tokens of context (`kimi plan` says more):",
        first.context_length
    )?;
    writeln!(
        out,
        "{:<14}{:<8}{:>12}{:>12}{:>12}",
        "HARDWARE", "FITS", "VRAM", "RAM", "GPU EXPERTS"
    )?;
    for row in &summary.serving {
        let fits = match row.fits {
            Fits::Yes => "yes",
            Fits::Tight => "tight",
            Fits::No => "no",
        };
        writeln!(
            out,
            "{:<14}{fits:<8}{:>11}B{:>11}B{:>12}",
            row.hardware,
            short(row.vram_bytes),
            short(row.ram_bytes),
            row.gpu_experts,
        )?;
    }
    Ok(())
}

fn shards(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if summary.shards.len() < 2 {
        return Ok(());
    }
    writeln!(out, "\n{:<52}{:>8}{:>18}", "SHARD", "TENSORS", "BYTES")?;
    for shard in &summary.shards {
        let name = shard
            .path
            .file_name()
            .map_or_else(Default::default, |name| name.to_string_lossy());
        writeln!(out, "{name:<52}{:>8}{:>18}", shard.tensors, shard.bytes)?;
    }
    Ok(())
}

/// A number in thousands, millions or billions: `14.3 M`.
fn short(number: u64) -> String {
    let value = number as f64;
    match number {
        0..1_000 => format!("{number} "),
        1_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.1} G", value / 1e9),
    }
}
