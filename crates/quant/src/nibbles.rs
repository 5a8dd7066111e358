//! Bit packing that the 32-value types share. It must not know scales or offsets.

/// 32 values of 4 bits: byte j holds value j below and value j + 16 above.
#[inline(always)]
pub(crate) fn unpack(qs: &[u8; 16]) -> [u8; 32] {
    let mut values = [0; 32];
    for (j, byte) in qs.iter().enumerate() {
        values[j] = byte & 15;
        values[j + 16] = byte >> 4;
    }
    values
}

/// The inverse of [`unpack`]; bits above the fourth are dropped.
pub(crate) fn pack(values: &[u8; 32]) -> [u8; 16] {
    let mut qs = [0; 16];
    for (j, byte) in qs.iter_mut().enumerate() {
        *byte = values[j] & 15 | values[j + 16] << 4;
    }
    qs
}

/// 32 values of 5 bits: bit j of the little-endian `qh` is the fifth bit of value j.
pub(crate) fn unpack5(qs: &[u8; 16], qh: [u8; 4]) -> [u8; 32] {
    let qh = u32::from_le_bytes(qh);
    let mut values = unpack(qs);
    for (j, value) in values.iter_mut().enumerate() {
        *value |= ((qh >> j & 1) as u8) << 4;
    }
    values
}

/// The inverse of [`unpack5`].
pub(crate) fn pack5(values: &[u8; 32]) -> ([u8; 16], [u8; 4]) {
    let mut qh = 0;
    for (j, value) in values.iter().enumerate() {
        qh |= u32::from(value >> 4 & 1) << j;
    }
    (pack(values), qh.to_le_bytes())
}

/// The value of largest magnitude, with its sign; the first of equals.
pub(crate) fn extreme(values: &[f32; 32]) -> f32 {
    let mut extreme = 0.0f32;
    for value in values {
        if value.abs() > extreme.abs() {
            extreme = *value;
        }
    }
    extreme
}

/// The smallest and the largest value.
pub(crate) fn range(values: &[f32; 32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), v| {
            (min.min(*v), max.max(*v))
        })
}
