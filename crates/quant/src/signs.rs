//! Signs of eight levels kept apart from their magnitudes, as the IQ2 and IQ3 types keep them. It must not know grids.

/// For eight signs (bit i set: level i is negative) the bytes that are 0xff where the sign is negative.
static MASKS: [u64; 256] = masks();

const fn masks() -> [u64; 256] {
    let mut masks = [0; 256];
    let mut signs = 0;
    while signs < 256 {
        let mut bit = 0;
        while bit < 8 {
            if signs >> bit & 1 == 1 {
                masks[signs] |= 0xff << (8 * bit);
            }
            bit += 1;
        }
        signs += 1;
    }
    masks
}

/// Eight levels, none of them zero, with these signs.
#[inline(always)]
pub(crate) fn apply(levels: u64, signs: u8) -> u64 {
    let mask = MASKS[usize::from(signs)];
    // Two's complement of the masked bytes. No byte is zero, so that none carries into the next.
    (levels ^ mask) + (mask & 0x0101_0101_0101_0101)
}

/// Eight signs of which seven bits are stored: the number of negative ones is even.
#[inline(always)]
pub(crate) fn even(stored: u32) -> u8 {
    let stored = (stored & 127) as u8;
    let odd = (stored ^ stored >> 4) & 15;
    // Bit n of 0x6996 is the parity of the four bits n.
    stored | ((0x6996u16 >> odd & 1) as u8) << 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_bits_make_an_even_number_of_signs() {
        for stored in 0..128 {
            let signs = even(stored);
            assert_eq!(u32::from(signs) & 127, stored);
            assert_eq!(signs.count_ones() % 2, 0);
        }
    }

    #[test]
    fn signs_turn_their_level_and_no_other() {
        let levels = [1i8, 2, 25, 43, 62, 127, 8, 1];
        for signs in 0..=255 {
            let turned = apply(u64::from_le_bytes(levels.map(|l| l as u8)), signs);
            for (i, (byte, level)) in turned.to_le_bytes().iter().zip(levels).enumerate() {
                let sign = if signs >> i & 1 == 1 { -1 } else { 1 };
                assert_eq!(*byte as i8, sign * level);
            }
        }
    }
}
