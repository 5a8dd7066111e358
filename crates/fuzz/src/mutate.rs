//! Inputs made of a corpus by seeded changes: number `n` of a target is the same on every machine. It must not know
//! what inputs mean.

use crate::Target;

/// Longest input made.
const LONGEST: usize = 16 << 10;

/// Numbers that counts, lengths, types and offsets are not.
const NUMBERS: [u64; 14] = [
    0,
    1,
    8,
    9,
    127,
    128,
    255,
    1 << 16,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 62,
    u64::MAX,
];

/// Input number `number`: one of the corpus with a few changes.
pub fn input(target: &Target, corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let Some(mut bytes) = random.pick(corpus).cloned() else {
        return Vec::new();
    };
    for _ in 0..=random.below(5) {
        change(&mut bytes, target.words, corpus, &mut random);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, words: &[&str], corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.length().min(bytes.len() - at);
    match random.below(9) {
        0 | 1 => {
            let number = match random.below(4) {
                0 => random.next(),
                _ => random.pick(&NUMBERS).copied().unwrap_or_default(),
            };
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            for _ in 0..=random.below(3) {
                bytes.splice(at..at, piece.iter().copied());
            }
        }
        5 | 6 => {
            let word = random.pick(words).copied().unwrap_or_default();
            // Put in, or in place of something.
            let end = if random.below(2) == 0 { at } else { end };
            bytes.splice(at..end, word.bytes());
        }
        7 => {
            let other = random.pick(corpus).map_or(&[][..], Vec::as_slice);
            let from = random.below(other.len() + 1);
            let to = from + random.length().min(other.len() - from);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => bytes.truncate(at),
    }
}

/// Splitmix64 (Steele, Lea and Flood, 2014): every seed is as good as another.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    /// Mostly short, seldom long.
    fn length(&mut self) -> usize {
        let most = 1 << self.below(12);
        self.below(most) + 1
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = self.below(of.len());
        of.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_and_are_the_same_again() {
        let corpus = [b"some bytes".to_vec(), b"others".to_vec()];
        let all = || -> Vec<Vec<u8>> {
            (0..500)
                .map(|number| input(&crate::HEADER, &corpus, number))
                .collect()
        };
        let mut inputs = all();
        assert_eq!(inputs, all());
        inputs.sort();
        inputs.dedup();
        assert!(inputs.len() > 400, "{}", inputs.len());
        assert!(inputs.iter().all(|input| input.len() <= LONGEST));
        assert_eq!(input(&crate::HEADER, &[], 1), [0u8; 0]);
    }
}
