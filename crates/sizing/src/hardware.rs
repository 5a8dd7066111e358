//! TABLE of hardware a model can be asked to run on. Adding a GPU is one row. It must not know models or formulae.

use crate::GB;

/// One kind of accelerator, or the CPU. Figures are the vendor's data sheet; see the fields for how they are read.
#[derive(Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The value of `spec.hardware`.
    pub name: &'static str,
    /// VRAM in bytes: the data sheet's GB read as decimal. Drivers report up to 7 % more (a T4 shows 15,360 MiB, which
    /// is 16.1 GB), so a plan errs on the safe side. 0 for the CPU.
    pub memory_bytes: u64,
    /// Memory bandwidth in bytes per second. Where a name covers an SXM and a PCIe card, the slower of the two. For the
    /// CPU, the RAM bandwidth assumed of a host (see [`crate::time::HOST_RAM_BANDWIDTH`]).
    pub bandwidth: u64,
    /// CUDA compute capability (major, minor); `None` for the CPU.
    pub compute_capability: Option<(u8, u8)>,
    /// Values of the Node label `nvidia.com/gpu.product` (set by NVIDIA's GPU feature discovery) that mean this
    /// hardware. Shared (`-SHARED`) and MIG products are left out: they do not have the whole memory.
    pub node_labels: &'static [&'static str],
}

/// The Node label whose values [`Hardware::node_labels`] lists.
pub const PRODUCT_LABEL: &str = "nvidia.com/gpu.product";

const fn gpu(
    name: &'static str,
    gb: u64,
    gb_per_second: u64,
    compute_capability: (u8, u8),
    node_labels: &'static [&'static str],
) -> Hardware {
    Hardware {
        name,
        memory_bytes: gb * GB,
        bandwidth: gb_per_second * GB,
        compute_capability: Some(compute_capability),
        node_labels,
    }
}

static TABLE: [Hardware; 10] = [
    gpu("T4", 16, 300, (7, 5), &["Tesla-T4", "NVIDIA-T4"]),
    gpu("L4", 24, 300, (8, 9), &["NVIDIA-L4"]),
    gpu(
        "V100-16GB",
        16,
        900,
        (7, 0),
        &[
            "Tesla-V100-SXM2-16GB",
            "Tesla-V100-PCIE-16GB",
            "Tesla-V100-FHHL-16GB",
        ],
    ),
    gpu(
        "V100-32GB",
        32,
        900,
        (7, 0),
        &[
            "Tesla-V100-SXM2-32GB",
            "Tesla-V100-SXM3-32GB",
            "Tesla-V100-PCIE-32GB",
        ],
    ),
    gpu("A10", 24, 600, (8, 6), &["NVIDIA-A10"]),
    gpu("A10G", 24, 600, (8, 6), &["NVIDIA-A10G"]),
    gpu(
        "A100",
        40,
        1555,
        (8, 0),
        &[
            "NVIDIA-A100-SXM4-40GB",
            "NVIDIA-A100-PCIE-40GB",
            "A100-SXM4-40GB",
            "A100-PCIE-40GB",
        ],
    ),
    gpu(
        "A100-80GB",
        80,
        1935,
        (8, 0),
        &[
            "NVIDIA-A100-SXM4-80GB",
            "NVIDIA-A100-80GB-PCIe",
            "A100-SXM4-80GB",
        ],
    ),
    gpu(
        "H100",
        80,
        2000,
        (9, 0),
        &[
            "NVIDIA-H100-80GB-HBM3",
            "NVIDIA-H100-PCIe",
            "NVIDIA-H100-NVL",
        ],
    ),
    Hardware {
        name: "CPU",
        memory_bytes: 0,
        bandwidth: crate::time::HOST_RAM_BANDWIDTH,
        compute_capability: None,
        node_labels: &[],
    },
];

impl Hardware {
    /// Every row, in the order of the documentation.
    pub fn all() -> &'static [Hardware] {
        &TABLE
    }

    /// The row called `name` (exactly as written in `spec.hardware`).
    pub fn by_name(name: &str) -> Option<&'static Hardware> {
        TABLE.iter().find(|row| row.name == name)
    }

    /// True for the row that has no VRAM.
    pub fn is_cpu(&self) -> bool {
        self.compute_capability.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_unique() {
        let mut words: Vec<&str> = Vec::new();
        for row in Hardware::all() {
            words.push(row.name);
            words.extend(row.node_labels);
            assert_eq!(Hardware::by_name(row.name), Some(row));
            assert_eq!(row.is_cpu(), row.memory_bytes == 0);
        }
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert_eq!(Hardware::by_name("t4"), None);
    }
}
