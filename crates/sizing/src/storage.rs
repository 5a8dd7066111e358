//! Bytes of the volume that holds one artifact: the weights and room beside them. It must not know what a volume is.

use crate::{GB, MB};

/// "Model size + 50GB": the guide's buffer, and the step its sizes are rounded up to (295 -> 300, 431 -> 450 GB).
pub const GUIDE_HEADROOM: u64 = 50 * GB;

/// Volume bytes for `size` bytes of weights.
///
/// The default headroom is the guide's 50 GB, but never more than a quarter of the weights, so that a 9 MB model does
/// not claim 50 GB; the sum is rounded up to 50 GB where the headroom is the full 50 GB, and to 1 GB below. A headroom
/// given by the user is taken as it is and the sum rounded up to 1 MB. Saturates at `u64::MAX`.
pub fn volume_bytes(size: u64, headroom: Option<u64>) -> u64 {
    match headroom {
        Some(headroom) => round_up(size.saturating_add(headroom), MB),
        None if size / 4 >= GUIDE_HEADROOM => {
            round_up(size.saturating_add(GUIDE_HEADROOM), GUIDE_HEADROOM)
        }
        None => round_up(size.saturating_add(size / 4), GB).max(GB),
    }
}

fn round_up(bytes: u64, step: u64) -> u64 {
    bytes.div_ceil(step).saturating_mul(step)
}
