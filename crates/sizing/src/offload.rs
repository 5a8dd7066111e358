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

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [ExpertSize; 3] = [
        ExpertSize {
            bytes: 30,
            count: 2,
        },
        ExpertSize {
            bytes: 10,
            count: 3,
        },
        ExpertSize {
            bytes: 20,
            count: 1,
        },
    ];

    #[test]
    fn only_whole_experts_smallest_first() {
        let placed = |space| {
            let placed = whole_experts(space, &SIZES);
            (placed.count, placed.bytes)
        };
        assert_eq!(placed(9), (0, 0));
        assert_eq!(placed(29), (2, 20));
        assert_eq!(placed(49), (3, 30));
        assert_eq!(placed(50), (4, 50));
        assert_eq!(placed(109), (5, 80));
        assert_eq!(placed(u64::MAX), (6, 110));
    }

    #[test]
    fn sizes_that_cannot_be_true_place_nothing_wrong() {
        assert_eq!(
            whole_experts(
                100,
                &[ExpertSize {
                    bytes: 0,
                    count: u64::MAX
                }]
            ),
            Placed::default()
        );
        let all = whole_experts(
            u64::MAX,
            &[ExpertSize {
                bytes: u64::MAX,
                count: u64::MAX,
            }],
        );
        assert_eq!((all.count, all.bytes), (1, u64::MAX));
    }
}
