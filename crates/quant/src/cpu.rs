//! Which instruction sets this CPU has, asked once. It must not know any kernel.

use std::sync::OnceLock;

/// An instruction set a kernel may be written for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable Rust, the reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (every x86 server CPU since 2015).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL on top of [`Isa::Avx2`].
    Avx512,
    /// AVX-512 VNNI, which multiplies bytes and adds 32-bit numbers in one step, on top of [`Isa::Avx512`].
    Vnni,
    /// AMX with tiles of bytes, which multiplies 16 rows with 16 tokens over 64 values in one step, on top of [`Isa::Vnni`].
    Amx,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Vnni, Isa::Amx];

    /// True when the running CPU (and operating system) can execute it.
    pub fn available(self) -> bool {
        static BEST: OnceLock<Isa> = OnceLock::new();
        self <= *BEST.get_or_init(detect)
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) if is_x86_feature_detected!("avx512vnni") => {
            if has_tiles() {
                Isa::Amx
            } else {
                Isa::Vnni
            }
        }
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        (false, _) => Isa::Scalar,
    }
}

/// Whether there are tiles, and the system lets this process have them: their 8 KiB are saved with a thread only where
/// that was asked for.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_tiles() -> bool {
    use std::arch::{asm, x86_64::__cpuid_count};
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let wanted = AMX_TILE | AMX_INT8;
    if __cpuid_count(7, 0).edx & wanted != wanted {
        return false;
    }
    let result: i64;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM, feature) reads and writes no memory of ours; where the kernel does not know
    // it, it returns an error. The instruction overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn has_tiles() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}
