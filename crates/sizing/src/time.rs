//! Seconds of a download and tokens per second of a decode, from bandwidths alone. It must not know where bytes come
//! from; it divides.

use crate::GB;

/// RAM bandwidth assumed of a host, in bytes per second: four channels of DDR4-3200, what the smaller cloud machines
/// give a GPU instance. Large servers have two to five times as much.
pub const HOST_RAM_BANDWIDTH: u64 = 100 * GB;

/// Bandwidth of reading experts from disk while decoding, in bytes per second: one NVMe drive at the request sizes
/// of expert slices.
pub const DISK_BANDWIDTH: u64 = 3 * GB;

/// Seconds to move `bytes` at `bits_per_second`, rounded up; `u64::MAX` at 0 bits per second.
pub fn download_seconds(bytes: u64, bits_per_second: u64) -> u64 {
    if bits_per_second == 0 {
        return u64::MAX;
    }
    clamp((u128::from(bytes) * 8).div_ceil(u128::from(bits_per_second)))
}

/// Seconds to read the weights once, which is the least that a load takes.
pub fn load_seconds(bytes: u64) -> u64 {
    bytes.div_ceil(DISK_BANDWIDTH)
}

/// Bytes that one decoded token reads, by where they are read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenReads {
    /// From the memory of the device that holds the always-active weights: those, the KV cache, experts in VRAM.
    pub device: u64,
    /// Experts from RAM.
    pub ram: u64,
    /// Experts from disk.
    pub disk: u64,
}

/// Decode speed in thousandths of a token per second when reads do not overlap: a ceiling of the hardware's, minus
/// whatever the engine fails to use. `None` when nothing is read.
pub fn milli_tokens_per_second(reads: TokenReads, device_bandwidth: u64) -> Option<u64> {
    let picoseconds = |bytes: u64, bandwidth: u64| {
        u128::from(bytes) * 1_000_000_000_000 / u128::from(bandwidth.max(1))
    };
    let total = picoseconds(reads.device, device_bandwidth)
        + picoseconds(reads.ram, HOST_RAM_BANDWIDTH)
        + picoseconds(reads.disk, DISK_BANDWIDTH);
    (total > 0).then(|| clamp(1_000_000_000_000_000 / total))
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_size_over_bandwidth() {
        assert_eq!(download_seconds(245 * GB, 1_000_000_000), 1960);
        assert_eq!(download_seconds(245 * GB, 100_000_000), 19_600);
        assert_eq!(download_seconds(1, 1_000_000_000), 1);
        assert_eq!(download_seconds(0, 1), 0);
        assert_eq!(download_seconds(1, 0), u64::MAX);
        assert_eq!(download_seconds(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn reads_add_up() {
        let reads = TokenReads {
            device: 3 * GB,
            ram: GB,
            disk: 3 * GB,
        };
        // 3/300 + 1/100 + 3/3 seconds.
        assert_eq!(milli_tokens_per_second(reads, 300 * GB), Some(980));
        assert_eq!(
            milli_tokens_per_second(TokenReads::default(), 300 * GB),
            None
        );
        let huge = TokenReads {
            device: u64::MAX,
            ram: u64::MAX,
            disk: u64::MAX,
        };
        assert_eq!(milli_tokens_per_second(huge, 0), Some(0));
    }
}
