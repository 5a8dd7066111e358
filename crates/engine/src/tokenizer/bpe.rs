//! Byte-pair merging over bytes, and GPT-2's printable alphabet for them. It must not know special
//! tokens or how text was cut into pieces.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use foldhash::fast::RandomState;

use super::ByBytes;
use crate::Error;

/// Bytes up to which a piece is merged by looking through all its pairs for the next one; nearly all
/// pieces are shorter, and for them this is several times faster than a heap.
const SHORT: usize = 64;

/// GPT-2's alphabet: a printable Latin-1 byte is itself, the others count up from U+0100.
pub(super) fn byte_to_char(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|earlier| !is_printable(*earlier)).count();
    // index < 256, so the sum is a valid scalar value.
    u32::try_from(index)
        .ok()
        .and_then(|index| char::from_u32(0x100 + index))
        .unwrap_or('\u{fffd}')
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// Bytes of a token written in the alphabet; a character outside of it stands for its own UTF-8.
pub(super) fn chars_to_bytes(token: &str) -> Box<[u8]> {
    // The 68 unprintable bytes in order: their characters are U+0100, U+0101, …
    const UNPRINTABLE: [u8; 68] = {
        let mut bytes = [0; 68];
        let mut at = 0;
        let mut byte = 0u16;
        while byte < 256 {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            if !printable {
                bytes[at] = byte as u8;
                at += 1;
            }
            byte += 1;
        }
        bytes
    };
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        let code = c as u32;
        let byte = match u8::try_from(code) {
            Ok(byte) => is_printable(byte).then_some(byte),
            Err(_) => UNPRINTABLE.get(code as usize - 0x100).copied(),
        };
        match byte {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into()
}

/// The merge table: which two tokens become which, and how early.
pub(super) struct Merges {
    /// (left, right) → merge; a lower rank merges first.
    pairs: HashMap<(u32, u32), Merge, RandomState>,
    /// Token of each byte.
    bytes: [u32; 256],
}

/// What becomes of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    rank: u32,
    merged: u32,
}

impl Merge {
    /// Of a pair that does not merge.
    const NEVER: Self = Self {
        rank: u32::MAX,
        merged: 0,
    };
}

impl Merges {
    pub(super) fn new(merges: &[String], ordinary: &ByBytes) -> Result<Self, Error> {
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            *id = *ordinary.get([byte].as_slice()).ok_or_else(|| {
                Error::Tokenizer(format!("no token for the single byte 0x{byte:02x}"))
            })?;
        }
        let mut pairs = HashMap::with_capacity_and_hasher(merges.len(), RandomState::default());
        for (rank, merge) in (0u32..).zip(merges) {
            let pair = merge.split_once(' ').and_then(|(left, right)| {
                let left = chars_to_bytes(left);
                let right = chars_to_bytes(right);
                let merged = [&left[..], &right[..]].concat();
                let merge = Merge {
                    rank,
                    merged: *ordinary.get(merged.as_slice())?,
                };
                Some(((*ordinary.get(&left)?, *ordinary.get(&right)?), merge))
            });
            let (pair, result) = pair.ok_or_else(|| {
                Error::Tokenizer(format!(
                    "merge {rank} ({merge:?}) does not join two tokens into a third"
                ))
            })?;
            pairs.entry(pair).or_insert(result);
        }
        Ok(Self { pairs, bytes })
    }

    /// Appends the tokens of one piece. Always merges the pair of lowest rank, leftmost first.
    pub(super) fn encode(&self, piece: &[u8], ids: &mut Vec<u32>) {
        if piece.len() <= SHORT {
            self.encode_short(piece, ids);
        } else {
            self.encode_long(piece, ids);
        }
    }

    /// Looks through all pairs for each merge: n² steps, but tiny ones without allocation.
    fn encode_short(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let mut tokens = [0; SHORT];
        // Of each token with the next one.
        let mut merges = [Merge::NEVER; SHORT];
        let mut len = piece.len();
        for (token, byte) in tokens.iter_mut().zip(piece) {
            *token = self.bytes[usize::from(*byte)];
        }
        let merge = |left: u32, right: u32| {
            let found = self.pairs.get(&(left, right));
            found.copied().unwrap_or(Merge::NEVER)
        };
        for (slot, pair) in merges.iter_mut().zip(tokens[..len].windows(2)) {
            *slot = merge(pair[0], pair[1]);
        }
        while len > 1 {
            let pairs = merges[..len - 1].iter().enumerate();
            let Some((at, next)) = pairs.min_by_key(|(at, merge)| (merge.rank, *at)) else {
                break;
            };
            if next.rank == u32::MAX {
                break;
            }
            tokens[at] = next.merged;
            tokens.copy_within(at + 2..len, at + 1);
            merges.copy_within(at + 1..len, at);
            len -= 1;
            if at + 1 < len {
                merges[at] = merge(tokens[at], tokens[at + 1]);
            }
            if at > 0 {
                merges[at - 1] = merge(tokens[at - 1], tokens[at]);
            }
        }
        ids.extend_from_slice(&tokens[..len]);
    }

    /// With a heap, so that a piece of n bytes takes n log n.
    fn encode_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = (0..piece.len())
            .map(|at| Symbol {
                id: self.bytes[usize::from(piece[at])],
                previous: at.checked_sub(1),
                next: (at + 1 < piece.len()).then_some(at + 1),
                alive: true,
            })
            .collect();
        let mut heap = BinaryHeap::new();
        for left in 0..symbols.len() {
            self.push(&symbols, left, &mut heap);
        }
        while let Some(Reverse(candidate)) = heap.pop() {
            let (left, right) = (candidate.left, candidate.right);
            // Candidates are not removed when a neighbour merges; they are found stale here.
            let fresh = symbols[left].alive
                && symbols[right].alive
                && symbols[left].next == Some(right)
                && (symbols[left].id, symbols[right].id) == candidate.pair;
            if !fresh {
                continue;
            }
            let after = symbols[right].next;
            symbols[right].alive = false;
            symbols[left].id = candidate.merged;
            symbols[left].next = after;
            if let Some(after) = after {
                symbols[after].previous = Some(left);
            }
            self.push(&symbols, left, &mut heap);
            if let Some(before) = symbols[left].previous {
                self.push(&symbols, before, &mut heap);
            }
        }
        ids.extend(
            symbols
                .iter()
                .filter(|symbol| symbol.alive)
                .map(|symbol| symbol.id),
        );
    }

    fn push(&self, symbols: &[Symbol], left: usize, heap: &mut BinaryHeap<Reverse<Candidate>>) {
        let Some(right) = symbols[left].next else {
            return;
        };
        let pair = (symbols[left].id, symbols[right].id);
        if let Some(merge) = self.pairs.get(&pair) {
            heap.push(Reverse(Candidate {
                rank: merge.rank,
                left,
                right,
                pair,
                merged: merge.merged,
            }));
        }
    }
}

/// One token of the piece, in a list linked by index.
struct Symbol {
    id: u32,
    previous: Option<usize>,
    next: Option<usize>,
    alive: bool,
}

/// A possible merge; the order of the fields is the order of merging.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    right: usize,
    pair: (u32, u32),
    merged: u32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        for byte in 0..=u8::MAX {
            assert_eq!(
                &*chars_to_bytes(&byte_to_char(byte).to_string()),
                [byte],
                "{byte}"
            );
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(byte_to_char(0xad), 'Ń');
    }

    /// Bytes are tokens 0..256; then one token per merge.
    fn table(merges: &[&str]) -> Merges {
        let mut ordinary: ByBytes = (0..=u8::MAX)
            .map(|byte| ([byte].as_slice().into(), u32::from(byte)))
            .collect();
        for (id, merge) in (256..).zip(merges) {
            ordinary.insert(chars_to_bytes(&merge.replace(' ', "")), id);
        }
        let merges: Vec<String> = merges.iter().map(|merge| (*merge).to_owned()).collect();
        Merges::new(&merges, &ordinary).unwrap()
    }

    #[test]
    fn lower_rank_merges_first_and_ties_go_left() {
        let merges = table(&["b c", "a b", "a a"]);
        let encode = |piece: &str| {
            let mut ids = Vec::new();
            merges.encode(piece.as_bytes(), &mut ids);
            ids
        };
        assert_eq!(encode("abc"), [u32::from(b'a'), 256]);
        assert_eq!(encode("aaa"), [258, u32::from(b'a')]);
        assert_eq!(encode("aab"), [u32::from(b'a'), 257]);
        assert_eq!(encode(""), [0u32; 0]);
    }

    #[test]
    fn short_and_long_pieces_merge_alike() {
        let merges = table(&[
            "a b",
            "b a",
            "ab ab",
            "a a",
            "abab a",
            "b b",
            "aa b",
            "abab abab",
        ]);
        // Every piece of up to 9 of these bytes, by both ways.
        for len in 0..=9u32 {
            for number in 0..2u32.pow(len) {
                let piece: Vec<u8> = (0..len)
                    .map(|bit| b'a' + ((number >> bit) & 1) as u8)
                    .collect();
                let (mut short, mut long) = (Vec::new(), Vec::new());
                merges.encode_short(&piece, &mut short);
                merges.encode_long(&piece, &mut long);
                assert_eq!(short, long, "{piece:?}");
            }
        }
        let longest = b"abba".repeat(SHORT / 4);
        let (mut short, mut long) = (Vec::new(), Vec::new());
        merges.encode_short(&longest, &mut short);
        merges.encode_long(&longest, &mut long);
        assert_eq!(short, long);
    }

    #[test]
    fn a_merge_into_nothing_is_named() {
        let ordinary: ByBytes = (0..=u8::MAX)
            .map(|byte| ([byte].as_slice().into(), u32::from(byte)))
            .collect();
        let error = Merges::new(&["a b".to_owned()], &ordinary)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("\"a b\""), "{error}");
    }
}
