//! Which classes of Kimi's pattern a character belongs to, from the Unicode tables of the regex crates.
//! It must not know the pattern.

use std::{collections::HashMap, sync::OnceLock};

use regex_syntax::{
    Parser,
    hir::{Class, HirKind},
};

use crate::Error;

/// `\p{Han}`
pub(super) const HAN: u8 = 1;
/// `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}` without Han.
pub(super) const UPPER: u8 = 1 << 1;
/// `\p{Ll}\p{Lm}\p{Lo}\p{M}` without Han.
pub(super) const LOWER: u8 = 1 << 2;
/// `\p{L}`
pub(super) const LETTER: u8 = 1 << 3;
/// `\p{N}`
pub(super) const DIGIT: u8 = 1 << 4;
/// `\s`
pub(super) const SPACE: u8 = 1 << 5;
/// `[\r\n]`
pub(super) const NEWLINE: u8 = 1 << 6;

const CLASSES: [(u8, &str); 7] = [
    (HAN, r"\p{Han}"),
    (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"),
    (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"),
    (LETTER, r"\p{L}"),
    (DIGIT, r"\p{N}"),
    (SPACE, r"\s"),
    (NEWLINE, r"[\r\n]"),
];

const BLOCK: usize = 256;

/// One byte of classes per character, in blocks of which most are alike.
pub(super) struct Classes {
    /// Which block holds the characters from `256 n` on.
    index: Vec<u16>,
    blocks: Vec<[u8; BLOCK]>,
}

impl Classes {
    /// The tables, made once in a process.
    pub(super) fn shared() -> Result<&'static Self, Error> {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        match CLASSES.get() {
            Some(classes) => Ok(classes),
            None => Self::new().map(|classes| CLASSES.get_or_init(|| classes)),
        }
    }

    fn new() -> Result<Self, Error> {
        let mut flat = vec![0u8; char::MAX as usize + 1];
        for (class, pattern) in CLASSES {
            let broken = || Error::Tokenizer(format!("no table of the characters {pattern}"));
            let parsed = Parser::new().parse(pattern).map_err(|_| broken())?;
            let HirKind::Class(Class::Unicode(found)) = parsed.kind() else {
                return Err(broken());
            };
            for range in found.iter() {
                for flags in &mut flat[range.start() as usize..=range.end() as usize] {
                    *flags |= class;
                }
            }
        }
        let mut known: HashMap<[u8; BLOCK], u16> = HashMap::new();
        let mut classes = Self {
            index: Vec::with_capacity(flat.len() / BLOCK),
            blocks: Vec::new(),
        };
        let (blocks, _) = flat.as_chunks::<BLOCK>();
        for block in blocks {
            // There are 4352 blocks, so their numbers fit.
            let next = u16::try_from(classes.blocks.len()).unwrap_or(u16::MAX);
            let number = *known.entry(*block).or_insert(next);
            if number == next {
                classes.blocks.push(*block);
            }
            classes.index.push(number);
        }
        Ok(classes)
    }

    /// All classes of a character.
    pub(super) fn of(&self, c: char) -> u8 {
        let code = c as usize;
        self.blocks[usize::from(self.index[code / BLOCK])][code % BLOCK]
    }
}
