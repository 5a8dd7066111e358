//! The packed sub-block scales that Q4_K and Q5_K share. It must not know where the blocks keep them.

/// Unpacks eight (scale, minimum) pairs of 6 bits each from 12 bytes.
///
/// Bytes 0-3 hold the scales 0-3 in their low 6 bits, bytes 4-7 the minimums 0-3; bytes 8-11 hold the low 4 bits of
/// the scales 4-7 (low nibble) and of the minimums 4-7 (high nibble), whose high 2 bits are on top of bytes 0-7.
pub(crate) fn unpack(packed: &[u8; 12]) -> [(u8, u8); 8] {
    let (scales, minimums) = unpack_apart(packed);
    std::array::from_fn(|i| (scales[i], minimums[i]))
}

/// The same, scales and minimums apart; four bytes a step.
pub(crate) fn unpack_apart(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let [scales, minimums, low]: [[u8; 4]; 3] = bytemuck::cast(*packed);
    let [scales, minimums, low] = [scales, minimums, low].map(u32::from_le_bytes);
    let high = |top: u32| (top >> 6 & 0x0303_0303) << 4;
    let join = |low: u32, high: u32| bytemuck::cast([low.to_le_bytes(), high.to_le_bytes()]);
    (
        join(scales & 0x3f3f_3f3f, low & 0x0f0f_0f0f | high(scales)),
        join(
            minimums & 0x3f3f_3f3f,
            low >> 4 & 0x0f0f_0f0f | high(minimums),
        ),
    )
}
