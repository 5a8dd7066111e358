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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_volumes() {
        assert_eq!(volume_bytes(245 * GB, None), 300 * GB);
        assert_eq!(volume_bytes(381 * GB, None), 450 * GB);
    }

    #[test]
    fn small_models_do_not_claim_fifty_gigabytes() {
        assert_eq!(volume_bytes(0, None), GB);
        assert_eq!(volume_bytes(9 * MB, None), GB);
        assert_eq!(volume_bytes(10_540 * MB, None), 14 * GB);
        // Where the rules meet.
        assert_eq!(volume_bytes(200 * GB - 1, None), 250 * GB);
        assert_eq!(volume_bytes(200 * GB, None), 250 * GB);
        assert_eq!(volume_bytes(200 * GB + 1, None), 300 * GB);
    }

    #[test]
    fn a_given_headroom_is_taken_as_it_is() {
        assert_eq!(volume_bytes(9_099_456, Some(0)), 10 * MB);
        assert_eq!(volume_bytes(381 * GB, Some(19 * GB)), 400 * GB);
        assert_eq!(volume_bytes(u64::MAX, Some(1)), u64::MAX);
        assert_eq!(volume_bytes(1, Some(u64::MAX)), u64::MAX);
        assert_eq!(volume_bytes(u64::MAX, None), u64::MAX);
    }

    #[test]
    fn a_larger_model_never_gets_a_smaller_volume() {
        let sizes = (0..3000u64).map(|step| step * 100 * MB);
        let volumes: Vec<u64> = sizes.map(|size| volume_bytes(size, None)).collect();
        assert!(volumes.is_sorted());
    }
}
