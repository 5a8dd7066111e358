//! The packed sub-block scales that Q4_K and Q5_K share. It must not know where the blocks keep them.

/// Unpacks eight (scale, minimum) pairs of 6 bits each from 12 bytes.
///
/// Bytes 0-3 hold the scales 0-3 in their low 6 bits, bytes 4-7 the minimums 0-3; bytes 8-11 hold the low 4 bits of
/// the scales 4-7 (low nibble) and of the minimums 4-7 (high nibble), whose high 2 bits are on top of bytes 0-7.
pub(crate) fn unpack(packed: &[u8; 12]) -> [(u8, u8); 8] {
    let mut pairs = [(0, 0); 8];
    for i in 0..4 {
        let (scale, minimum, low) = (packed[i], packed[i + 4], packed[i + 8]);
        pairs[i] = (scale & 63, minimum & 63);
        pairs[i + 4] = (low & 15 | scale >> 6 << 4, low >> 4 | minimum >> 6 << 4);
    }
    pairs
}
