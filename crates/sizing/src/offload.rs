//! Which routed experts move into spare VRAM: whole experts only, of whatever byte sizes the layers have. It must not
//! know models, devices or what else lives in VRAM.

use crate::facts::ExpertSize;

/// Whole experts placed in a space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    pub count: u64,
    pub bytes: u64,
}

/// The most whole experts that fit in `space` bytes: smallest first, since every expert of a layer is as likely to be
/// used as another and the count is what matters. Sizes of 0 bytes place nothing.
pub fn whole_experts(space: u64, sizes: &[ExpertSize]) -> Placed {
    let mut sizes: Vec<ExpertSize> = sizes
        .iter()
        .copied()
        .filter(|size| size.bytes > 0)
        .collect();
    sizes.sort_by_key(|size| size.bytes);
    let mut placed = Placed::default();
    for size in sizes {
        let fit = ((space - placed.bytes) / size.bytes).min(size.count);
        placed.count = placed.count.saturating_add(fit);
        // fit <= (space - placed.bytes) / size.bytes, so the sum stays within `space`.
        placed.bytes += fit * size.bytes;
    }
    placed
}
