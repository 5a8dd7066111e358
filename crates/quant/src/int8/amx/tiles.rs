//! The tile registers: eight tables of at most 16 rows of 64 bytes, and the one instruction that multiplies them. Rust has
//! no stable intrinsics for them, so this is assembly, in blocks that leave nothing behind in a tile that anybody reads.
//! It must not know what is multiplied.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 ("Programming with Intel AMX").

use std::arch::asm;

/// Products that are made side by side: while one waits for its sum, the others go on.
pub(super) const SIDES: usize = 4;
/// Rows of a tile, and numbers in a row of sums.
pub(super) const LANES: usize = 16;

/// 16 rows of 64 bytes; as the right side, row k holds the levels 4·k to 4·k + 3 of sixteen tokens.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [[u8; 64]; LANES]);

/// 16 rows of 32 bytes, for the left side of a product of 32 levels.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Left(pub(super) [[u8; 32]; LANES]);

/// 8 rows of 64 bytes, for its right side.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Right(pub(super) [[u8; 64]; 8]);

/// By row of the left side, the sums of its products with sixteen tokens.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[i32; LANES]; LANES]);

impl Tile {
    pub(super) const ZERO: Tile = Tile([[0; 64]; LANES]);
}

impl Left {
    pub(super) const ZERO: Left = Left([[0; 32]; LANES]);
}

impl Right {
    pub(super) const ZERO: Right = Right([[0; 64]; 8]);
}

impl Sums {
    pub(super) const ZERO: Sums = Sums([[0; LANES]; LANES]);
}

/// What `ldtilecfg` loads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tiles, in one of the shapes below until it is dropped.
struct Shaped;

impl Shaped {
    /// Must only be called where [`crate::Isa::Amx`] is available.
    fn new(row_bytes: [u16; 8], rows: [u8; 8]) -> Shaped {
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        shapes.row_bytes[..8].copy_from_slice(&row_bytes);
        shapes.rows[..8].copy_from_slice(&rows);
        // SAFETY: palette 1 has eight tiles of up to 16 rows of 64 bytes, and the instruction reads the 64 bytes of `shapes`.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) };
        Shaped
    }
}

impl Drop for Shaped {
    fn drop(&mut self) {
        // SAFETY: nobody reads a tile later. Released tiles need not be saved when the system takes the CPU away.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Tiles for products of 256 levels.
pub(super) struct Wide(Shaped);

impl Wide {
    /// Must only be called where [`crate::Isa::Amx`] is available.
    pub(super) fn new() -> Wide {
        Wide(Shaped::new([64; 8], [16; 8]))
    }

    /// Four products over 256 levels: of the sides of `left`, by 64 levels, with `right`.
    #[inline]
    pub(super) fn multiply(
        &self,
        left: &[[Tile; SIDES]; 4],
        right: &[Tile; 4],
        sums: &mut [Sums; SIDES],
    ) {
        // SAFETY: tiles have 16 rows of 64 bytes, so that each access is to the 1,024 bytes of one element of an array.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{right} + {row}*1]",
                "tileloadd tmm4, [{left} + {row}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{left} + {row}*1 + 1024]",
                "tdpbssd tmm1, tmm5, tmm6",
                "tileloadd tmm7, [{left} + {row}*1 + 2048]",
                "tdpbssd tmm2, tmm7, tmm6",
                "tileloadd tmm4, [{left} + {row}*1 + 3072]",
                "tdpbssd tmm3, tmm4, tmm6",
                "add {left}, 4096",
                "add {right}, 1024",
                "cmp {right}, {end}",
                "jne 2b",
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                left = inout(reg) left.as_ptr() => _,
                right = inout(reg) right.as_ptr() => _,
                end = in(reg) right.as_ptr_range().end,
                sums = in(reg) sums.as_mut_ptr(),
                row = in(reg) 64_usize,
                options(nostack),
            );
        }
    }
}

/// Tiles for products of 32 levels.
pub(super) struct Narrow(Shaped);

impl Narrow {
    /// Must only be called where [`crate::Isa::Amx`] is available.
    pub(super) fn new() -> Narrow {
        Narrow(Shaped::new(
            [64, 64, 64, 64, 32, 32, 64, 64],
            [16, 16, 16, 16, 16, 16, 8, 8],
        ))
    }

    /// Four products over 32 levels: of the sides of `left` with `right`.
    #[inline]
    pub(super) fn multiply(&self, left: &[Left; SIDES], right: &Right, sums: &mut [Sums; SIDES]) {
        // SAFETY: tiles 4 and 5 have 16 rows of 32 bytes, tile 6 has 8 of 64 and those of sums have 16 of 64, so that each
        // access is to one element of an array.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm6, [{right} + {row}*1]",
                "tileloadd tmm4, [{left} + {half}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{left} + {half}*1 + 512]",
                "tdpbssd tmm1, tmm5, tmm6",
                "tileloadd tmm4, [{left} + {half}*1 + 1024]",
                "tdpbssd tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{left} + {half}*1 + 1536]",
                "tdpbssd tmm3, tmm5, tmm6",
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                left = in(reg) left.as_ptr(),
                right = in(reg) right,
                sums = in(reg) sums.as_mut_ptr(),
                row = in(reg) 64_usize,
                half = in(reg) 32_usize,
                options(nostack),
            );
        }
    }
}
