//! What the table tests share: golden files, GB in words, and the tensor table of one published quant.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

use sizing::facts::{Class, ClassRow, ExpertSize};
use sizing::{Facts, GB, Model};

/// Compares the generated section `name` of the document at `path` (from the repository's root) with `text`, or
/// rewrites it with `UPDATE_GOLDEN=1`. A section stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.
pub(crate) fn golden_section(path: &str, name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    let document = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (begin, end) = (
        format!("<!-- generated: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let (before, rest) = document
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (committed, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{path} has no {end}"));
    if committed == text {
        return;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, format!("{before}{begin}{text}{end}{after}")).unwrap();
        return;
    }
    let line = committed.lines().zip(text.lines()).find(|(a, b)| a != b);
    panic!(
        "{path}, section {name}, is out of date at {line:?}; run `make gen` and look at the diff"
    );
}

/// GB with one decimal, without it when whole; MB below 1 GB.
pub(crate) fn gb(bytes: u64) -> String {
    if bytes < GB {
        return format!("{} MB", bytes.div_ceil(1_000_000));
    }
    let tenths = (bytes + GB / 20) / (GB / 10);
    if tenths.is_multiple_of(10) {
        format!("{} GB", tenths / 10)
    } else {
        format!("{}.{} GB", tenths / 10, tenths % 10)
    }
}

/// UD-IQ3_XXS of Kimi-K2-Instruct, after the tensor dump in ik_llama.cpp pull request 616: 388.003 GiB; down_exps 38
/// IQ3_XXS, 11 IQ3_S, 11 IQ4_XS; gate_exps and up_exps 44 IQ3_XXS, 16 IQ3_S; embedding Q4_K, output Q6_K; 6.95 GB
/// always active.
pub(crate) fn iq3_xxs_facts() -> Facts {
    const VALUES: u64 = 7168 * 2048; // of one matrix of one expert
    let matrix = |block: u64| VALUES / 256 * block; // IQ3_XXS 98, IQ3_S 110, IQ4_XS 136 bytes per 256 values
    let (xxs, s, xs) = (matrix(98), matrix(110), matrix(136));
    let expert = |dtype: &str, count: u64, each: u64| ClassRow {
        class: Class::Expert,
        dtype: dtype.to_owned(),
        count,
        bytes: count * 384 * each,
    };
    let row = |class, dtype: &str, count, bytes| ClassRow {
        class,
        dtype: dtype.to_owned(),
        count,
        bytes,
    };
    let vocab_rows = 163_840 * 7168 / 256;
    let classes = vec![
        row(Class::Embedding, "Q4_K", 1, vocab_rows * 144),
        row(Class::Output, "Q6_K", 1, vocab_rows * 210),
        row(Class::Attention, "IQ4_XS", 427, 3_276_000_000),
        row(Class::SharedExpert, "Q4_K", 180, 1_750_000_000),
        row(Class::Dense, "Q4_K", 3, 223_000_000),
        row(
            Class::Router,
            "F32",
            120,
            384 * 7168 * 4 * 60 + 384 * 4 * 60,
        ),
        row(Class::Norm, "F32", 245, 4_000_000),
        expert("IQ3_XXS", 38 + 2 * 44, xxs),
        expert("IQ3_S", 11 + 2 * 16, s),
        expert("IQ4_XS", 11, xs),
    ];
    // The dump gives counts, not which layers: the larger types are taken to sit in the same layers.
    let size = |layers: u64, gate_up: u64, down: u64| ExpertSize {
        bytes: 2 * gate_up + down,
        count: layers * 384,
    };
    let expert_sizes = vec![
        size(38, xxs, xxs),
        size(6, xxs, s),
        size(5, s, s),
        size(11, s, xs),
    ];
    let model = Model::by_name("Kimi-K2-Instruct").unwrap();
    Facts {
        repo: model.repo.to_owned(),
        commit: "0".repeat(40),
        path: "UD-IQ3_XXS".to_owned(),
        quant: "UD-IQ3_XXS".to_owned(),
        shards: 9,
        bytes: 416_615_000_000,
        digest: "0".repeat(64),
        architecture: "deepseek2".to_owned(),
        name: "Kimi K2 Instruct".to_owned(),
        context_length: 131_072,
        hyper: model.hyper,
        classes,
        expert_sizes,
    }
}
