//! Which files of a repository a quant is. Pure: a listing goes in, a complete set of shards comes out.
//!
//! A quant `Q` is, in this order: a directory named exactly `Q`; or files whose name has `Q` as a whole component, that
//! is between dashes, dots, slashes or the ends (`Kimi-Q4_K_M-00001-of-00003.gguf`, `Kimi.Q4_K_M.gguf`), whatever the
//! case. `Q2_K` does not mean `UD-Q2_K` or `Q2_K_XL`. A set of shards numbered `-00001-of-0000N` must be complete.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::hub::Listed;

/// The shards of one quant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The shards' directory, or, for a file in the root, its name up to the shard number.
    pub path: String,
    /// In path order, which is shard order.
    pub files: Vec<Listed>,
}

/// Picks the shards of `quant`, among the files at or below `path` if one is given (a directory or the start of file
/// names).
///
/// # Errors
/// [`Error::QuantNotFound`] with the quants that there are, [`Error::QuantAmbiguous`], [`Error::MissingShard`].
pub fn select(
    repo: &str,
    files: &[Listed],
    path: Option<&str>,
    quant: &str,
) -> Result<Selection, Error> {
    let path = path
        .map(|path| path.trim_matches('/'))
        .filter(|path| !path.is_empty());
    let weights: Vec<&Listed> = files.iter().filter(|file| is_weights(&file.path)).collect();
    let below = |file: &&&Listed| path.is_none_or(|path| file.path.starts_with(path));
    let sets = group(weights.iter().filter(below).copied());
    let matching = candidates(&sets, quant);
    match matching.as_slice() {
        [set] => complete(repo, set, &sets[*set]),
        [] => Err(Error::QuantNotFound {
            repo: repo.to_owned(),
            quant: quant.to_owned(),
            under: path
                .map(|path| format!(" under {path}"))
                .unwrap_or_default(),
            has: quants(&sets),
        }),
        several => Err(Error::QuantAmbiguous {
            repo: repo.to_owned(),
            quant: quant.to_owned(),
            found: several.iter().map(|set| set.prefix.clone()).collect(),
        }),
    }
}

/// Vision projectors and importance matrices are GGUF files beside the weights, not weights.
fn is_weights(path: &str) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    name.ends_with(".gguf") && !name.starts_with("mmproj") && !name.contains("imatrix")
}

/// What the shards of one set have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    /// Path up to the shard number, or to `.gguf`.
    prefix: String,
    /// The `N` of `-of-N`; 0 for a file that is whole by itself.
    count: u32,
}

type Sets<'a> = BTreeMap<Set, BTreeMap<u32, &'a Listed>>;

fn group<'a>(files: impl Iterator<Item = &'a Listed>) -> Sets<'a> {
    let mut sets = Sets::new();
    for file in files {
        let stem = &file.path[..file.path.len() - ".gguf".len()];
        let (prefix, number, count) = shard(stem).unwrap_or((stem, 1, 0));
        sets.entry(Set {
            prefix: prefix.to_owned(),
            count,
        })
        .or_default()
        .insert(number, file);
    }
    sets
}

/// Prefix, number and count of `PREFIX-00001-of-00003`.
fn shard(stem: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let five = |text: &str| {
        (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())
    };
    let (number, count): (u32, u32) = (five(number)??, five(count)??);
    (number >= 1 && number <= count).then_some((prefix, number, count))
}

fn candidates<'s>(sets: &'s Sets<'_>, quant: &str) -> Vec<&'s Set> {
    let directory = |set: &&Set, same: fn(&str, &str) -> bool| {
        directory(&set.prefix).split('/').any(|d| same(d, quant))
    };
    let named = |set: &&Set| has_component(file_name(&set.prefix), quant);
    for same in [str::eq as fn(&str, &str) -> bool, str::eq_ignore_ascii_case] {
        let inside: Vec<&Set> = sets.keys().filter(|set| directory(set, same)).collect();
        match inside.len() {
            0 => {}
            1 => return inside,
            _ => {
                // More than the quant in its directory: the name decides.
                let exact: Vec<&Set> = inside.iter().copied().filter(named).collect();
                return if exact.is_empty() { inside } else { exact };
            }
        }
    }
    sets.keys().filter(named).collect()
}

/// Whether `name` holds `quant` between separators, and not as the rest of a `UD-` quant.
fn has_component(name: &str, quant: &str) -> bool {
    let (name, quant) = (name.to_ascii_lowercase(), quant.to_ascii_lowercase());
    let separator = |c: Option<char>| c.is_none_or(|c| matches!(c, '-' | '.' | '/'));
    name.match_indices(&quant).any(|(at, _)| {
        let (before, after) = (&name[..at], &name[at + quant.len()..]);
        let dynamic = before == "ud-" || before.ends_with("-ud-") || before.ends_with(".ud-");
        separator(before.chars().next_back()) && separator(after.chars().next()) && !dynamic
    })
}

fn complete(repo: &str, set: &Set, shards: &BTreeMap<u32, &Listed>) -> Result<Selection, Error> {
    if let Some(missing) = (1..=set.count).find(|number| !shards.contains_key(number)) {
        let missing = format!("{}-{missing:05}-of-{:05}.gguf", set.prefix, set.count);
        return Err(Error::MissingShard {
            repo: repo.to_owned(),
            missing,
            count: set.count,
        });
    }
    let directory = directory(&set.prefix);
    let path = if directory.is_empty() {
        set.prefix.clone()
    } else {
        directory.to_owned()
    };
    let mut files: Vec<Listed> = shards.values().map(|file| (*file).clone()).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Selection { path, files })
}

/// The quants that a user could have meant.
fn quants(sets: &Sets<'_>) -> Vec<String> {
    let label = |set: &Set| label(&set.prefix);
    sets.keys()
        .map(label)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The quant in a path: from the first component of the file name that looks like one, or else the directory.
fn label(prefix: &str) -> String {
    let name = file_name(prefix);
    let starts = name.match_indices(['-', '.']).map(|(at, _)| at + 1);
    let found = std::iter::once(0)
        .chain(starts)
        .find(|at| looks_like_quant(&name[*at..]));
    match found {
        Some(at) => name[at..].to_owned(),
        None if directory(prefix).is_empty() => name.to_owned(),
        None => directory(prefix).to_owned(),
    }
}

fn looks_like_quant(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let text = text.strip_prefix("UD-").unwrap_or(&text);
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    ["IQ", "TQ", "Q", "BF", "F", "MXFP", "NVFP"]
        .iter()
        .any(|kind| text.strip_prefix(kind).is_some_and(digit))
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const REPO: &[&str] = &[
        "README.md",
        "BF16/K-BF16-00001-of-00002.gguf",
        "BF16/K-BF16-00002-of-00002.gguf",
        "UD-Q2_K_XL/K-UD-Q2_K_XL-00002-of-00002.gguf",
        "UD-Q2_K_XL/K-UD-Q2_K_XL-00001-of-00002.gguf",
        "Q4_K_M/K-Q4_K_M-00001-of-00003.gguf",
        "Q4_K_M/K-Q4_K_M-00003-of-00003.gguf",
        "K-Q8_0.gguf",
        "K.Q5_K_M.gguf",
        "K-UD-Q4_K_XL.gguf",
        "K-Q4_K_XL.gguf",
        "mmproj-F16.gguf",
        "imatrix.gguf",
        "mixed/A-Q6_K.gguf",
        "mixed/B-Q6_K.gguf",
    ];

    fn listing() -> Vec<Listed> {
        REPO.iter()
            .map(|path| Listed {
                path: (*path).into(),
                size: 1,
                sha256: None,
            })
            .collect()
    }

    fn paths(quant: &str, path: Option<&str>) -> Result<Vec<String>, String> {
        let selection =
            select("o/r", &listing(), path, quant).map_err(|error| error.to_string())?;
        Ok(selection.files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn directories_and_prefixes() {
        let dynamic = [
            "UD-Q2_K_XL/K-UD-Q2_K_XL-00001-of-00002.gguf",
            "UD-Q2_K_XL/K-UD-Q2_K_XL-00002-of-00002.gguf",
        ];
        assert_eq!(paths("UD-Q2_K_XL", None).unwrap(), dynamic);
        assert_eq!(paths("ud-q2_k_xl", None).unwrap(), dynamic);
        assert_eq!(paths("Q8_0", None).unwrap(), ["K-Q8_0.gguf"]);
        assert_eq!(paths("Q5_K_M", None).unwrap(), ["K.Q5_K_M.gguf"]);
        assert_eq!(paths("Q4_K_XL", None).unwrap(), ["K-Q4_K_XL.gguf"]);
        assert_eq!(paths("UD-Q4_K_XL", None).unwrap(), ["K-UD-Q4_K_XL.gguf"]);
        assert_eq!(
            paths("Q6_K", Some("mixed/A")).unwrap(),
            ["mixed/A-Q6_K.gguf"]
        );
        assert_eq!(
            paths("Q6_K", Some("/mixed/B-Q6_K.gguf")).unwrap(),
            ["mixed/B-Q6_K.gguf"]
        );
        assert_eq!(
            select("o/r", &listing(), None, "BF16").unwrap().path,
            "BF16"
        );
        assert_eq!(
            select("o/r", &listing(), None, "Q8_0").unwrap().path,
            "K-Q8_0"
        );
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = paths("Q9_X", None).unwrap_err();
        assert!(error.contains("no quant 'Q9_X'"), "{error}");
        for quant in [
            "BF16",
            "Q4_K_M",
            "Q4_K_XL",
            "Q5_K_M",
            "Q6_K",
            "Q8_0",
            "UD-Q2_K_XL",
            "UD-Q4_K_XL",
        ] {
            assert!(error.contains(quant), "{quant} not in: {error}");
        }
        assert!(
            !error.contains("mmproj") && !error.contains("imatrix"),
            "{error}"
        );
        // Part of a component is no match, and neither is a vision projector.
        for quant in ["Q4_K", "Q2_K", "Q2_K_XL", "F16"] {
            assert!(paths(quant, None).is_err(), "{quant}");
        }
        assert!(
            paths("Q8_0", Some("BF16"))
                .unwrap_err()
                .contains("under BF16; it has: BF16")
        );
    }

    #[test]
    fn a_gap_and_a_double_meaning_are_errors() {
        let gap = paths("Q4_K_M", None).unwrap_err();
        assert!(gap.contains("Q4_K_M/K-Q4_K_M-00002-of-00003.gguf"), "{gap}");
        let double = paths("Q6_K", None).unwrap_err();
        assert!(double.contains("mixed/A-Q6_K, mixed/B-Q6_K"), "{double}");
    }
}
