//! The closed vocabularies of the spec: hardware and objectives. It must know no sizes; those are rows of the
//! sizing tables, found by these names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine part a model is planned for: one GPU, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum HardwareName {
    T4,
    L4,
    #[serde(rename = "V100-16GB")]
    V100x16,
    #[serde(rename = "V100-32GB")]
    V100x32,
    A10,
    A10G,
    A100,
    #[serde(rename = "A100-80GB")]
    A100x80,
    H100,
    #[serde(rename = "CPU")]
    Cpu,
}

impl HardwareName {
    /// Every value, in the order of the schema's enum.
    pub const ALL: [Self; 10] = [
        Self::T4,
        Self::L4,
        Self::V100x16,
        Self::V100x32,
        Self::A10,
        Self::A10G,
        Self::A100,
        Self::A100x80,
        Self::H100,
        Self::Cpu,
    ];

    /// The word users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::T4 => "T4",
            Self::L4 => "L4",
            Self::V100x16 => "V100-16GB",
            Self::V100x32 => "V100-32GB",
            Self::A10 => "A10",
            Self::A10G => "A10G",
            Self::A100 => "A100",
            Self::A100x80 => "A100-80GB",
            Self::H100 => "H100",
            Self::Cpu => "CPU",
        }
    }

    /// Whether this names a GPU.
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

impl std::fmt::Display for HardwareName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `quant: auto` optimises for; the rows of the quantization guide's use-case table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Objective {
    #[default]
    Production,
    Development,
    Edge,
    Research,
    Cost,
    Quality,
}

impl Objective {
    /// Every value, in the order of the schema's enum.
    pub const ALL: [Self; 6] = [
        Self::Production,
        Self::Development,
        Self::Edge,
        Self::Research,
        Self::Cost,
        Self::Quality,
    ];

    /// The word users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "Production",
            Self::Development => "Development",
            Self::Edge => "Edge",
            Self::Research => "Research",
            Self::Cost => "Cost",
            Self::Quality => "Quality",
        }
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
