//! Rows that a loop multiplies together, a lane for each, and where their products go. It must not know instructions.

use super::Rows;

/// `LANES` rows of blocks; where a tensor has fewer left, its last row again.
pub(crate) struct Strip<'w, B, const LANES: usize> {
    pub(crate) rows: [&'w [B]; LANES],
    /// What precedes each row, for the types that have it.
    pub(crate) scales: [f32; LANES],
    /// Blocks that every row has.
    pub(crate) blocks: usize,
}

/// Sees a row as its scale and its blocks.
pub(crate) type See<B> = for<'w> fn(&'w [u8]) -> (f32, &'w [B]);

impl<'w, B, const LANES: usize> Strip<'w, B, LANES> {
    /// The rows from `first` on, of which there must be one.
    pub(crate) fn new(rows: Rows<'w>, first: usize, see: See<B>) -> Self {
        let seen: [(f32, &[B]); LANES] =
            std::array::from_fn(|lane| see(rows.row((first + lane).min(rows.count() - 1))));
        Strip {
            rows: seen.map(|(_, blocks)| blocks),
            scales: seen.map(|(scale, _)| scale),
            blocks: seen[0].1.len(),
        }
    }
}

/// What lies behind a strip, most likely the next to be multiplied: a cache can fetch it while this one is, which asks
/// nothing of memory once it is open.
pub(crate) struct Behind {
    /// Where, and how far. Only prefetched, never read: the strip may have been the last.
    at: *const u8,
    left: usize,
    /// Bytes at a time.
    step: usize,
}

impl Behind {
    /// Behind `lanes` rows from `first` on, to be fetched in `steps`.
    pub(crate) fn new(rows: Rows<'_>, first: usize, lanes: usize, steps: usize) -> Self {
        let left = lanes * rows.row_bytes;
        let start = rows.bytes.as_ptr().wrapping_add(first * rows.row_bytes);
        Behind {
            at: start.wrapping_add(left),
            left,
            step: left.div_ceil(steps.max(1)),
        }
    }

    /// The next step of it, from where to how far.
    pub(crate) fn step(&mut self) -> (*const u8, usize) {
        let bytes = self.step.min(self.left);
        let step = (self.at, bytes);
        self.at = self.at.wrapping_add(bytes);
        self.left -= bytes;
        step
    }
}

/// Where the products of a strip go: token after token, `rows` apart.
pub(crate) struct Place<'o> {
    out: &'o mut [f32],
    rows: usize,
    /// Of the next token, its product with the strip's first row.
    next: usize,
    /// Rows from there on.
    left: usize,
}

impl<'o> Place<'o> {
    pub(crate) fn new(out: &'o mut [f32], rows: usize, first: usize) -> Self {
        Place {
            out,
            rows,
            next: first,
            left: rows - first,
        }
    }

    /// The products of the next token, a row in each lane.
    pub(crate) fn put<const LANES: usize>(&mut self, products: [f32; LANES]) {
        let live = LANES.min(self.left);
        if let Some(out) = self.out.get_mut(self.next..self.next + live) {
            out.copy_from_slice(&products[..live]);
        }
        self.next += self.rows;
    }
}

/// Runs `$add` for every tile of the grain with its blocks as `$blocks` and its tokens' share of `$totals` as `$of_tile`.
macro_rules! each_tile {
    ($x:expr, $grain:ident, $totals:expr, |$blocks:ident, $of_tile:ident| $add:expr) => {
        let mut rest: &mut [_] = &mut $totals;
        for tile in $x.tiles() {
            match &tile.0 {
                Width::One(Blocks::$grain($blocks)) => each_tile!(@ 1, rest, $of_tile, $add),
                Width::Two(Blocks::$grain($blocks)) => each_tile!(@ 2, rest, $of_tile, $add),
                Width::Four(Blocks::$grain($blocks)) => each_tile!(@ 4, rest, $of_tile, $add),
                _ => {}
            }
        }
    };
    (@ $tokens:literal, $rest:ident, $of_tile:ident, $add:expr) => {
        if let Some(($of_tile, others)) =
            std::mem::take(&mut $rest).split_first_chunk_mut::<$tokens>()
        {
            $add;
            $rest = others;
        }
    };
}
pub(crate) use each_tile;
