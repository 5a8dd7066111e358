//! Eight signs of which seven are stored, as the IQ2 and IQ3 types have them. It must not know grids or levels.

/// Signs of four times eight levels from 28 bits, lowest first: the eighth sign makes the number of negative ones even.
#[inline(always)]
pub(crate) fn even(stored: u32) -> [u8; 4] {
    let sevens = stored & 127
        | (stored & 127 << 7) << 1
        | (stored & 127 << 14) << 2
        | (stored & 127 << 21) << 3;
    // The parity of each byte, in its lowest bit.
    let parity = sevens ^ sevens >> 4;
    let parity = parity ^ parity >> 2;
    let parity = (parity ^ parity >> 1) & 0x0101_0101;
    (sevens | parity << 7).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_bits_make_an_even_number_of_signs() {
        for stored in 0..128 {
            for place in 0..4 {
                // The others are all ones, the upper four bits are not looked at.
                let packed = u32::MAX ^ (127 ^ stored) << (7 * place);
                for (at, signs) in even(packed).into_iter().enumerate() {
                    let expected = if at == place { stored } else { 127 };
                    assert_eq!(u32::from(signs) & 127, expected);
                    assert_eq!(signs.count_ones() % 2, 0);
                }
            }
        }
    }
}
