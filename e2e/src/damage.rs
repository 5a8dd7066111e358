//! Weights that no hash catches: a quant of the test repository copied under a new name with one tensor damaged, so that
//! the hub vouches for bytes that cannot serve. It must know no cluster.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gguf::TensorInfo;

use crate::hub::REPO;

/// The quant that is copied: a block of its type begins with the scale.
const SOUND: &str = "Q8_0";
/// The largest f16 NaN, little-endian.
const NAN: [u8; 2] = [0xff, 0x7f];
/// Odd, so that it visits every row of an embedding whose rows are a power of two.
const STRIDE: usize = 1_237;

/// What is wrong with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A scale that is no number.
    NanScale,
    /// Every token has another one's embedding.
    ShuffledEmbedding,
    /// A router that sends all tokens the same way.
    ZeroedRouter,
}

impl Damage {
    pub const ALL: [Self; 3] = [Self::NanScale, Self::ShuffledEmbedding, Self::ZeroedRouter];

    /// The quant under which the hub offers it.
    pub fn quant(self) -> &'static str {
        match self {
            Self::NanScale => "BAD-SCALE",
            Self::ShuffledEmbedding => "BAD-EMBEDDING",
            Self::ZeroedRouter => "BAD-ROUTER",
        }
    }

    fn tensor(self) -> &'static str {
        match self {
            Self::NanScale => "blk.2.attn_output.weight",
            Self::ShuffledEmbedding => "token_embd.weight",
            Self::ZeroedRouter => "blk.3.ffn_gate_inp.weight",
        }
    }

    fn apply(self, data: &mut [u8], rows: usize) -> Result<()> {
        match self {
            Self::NanScale => data[..NAN.len()].copy_from_slice(&NAN),
            Self::ZeroedRouter => data.fill(0),
            Self::ShuffledEmbedding => {
                ensure!(rows.is_power_of_two(), "{rows} rows");
                let row = data.len() / rows;
                let sound = data.to_vec();
                for (at, out) in data.chunks_exact_mut(row).enumerate() {
                    let from = (at * STRIDE + 1) % rows;
                    out.copy_from_slice(&sound[from * row..(from + 1) * row]);
                }
            }
        }
        Ok(())
    }
}

/// Adds the damaged quant to the repository under `root`.
///
/// # Errors
/// When a file cannot be read or written, or none has the tensor.
pub fn publish(root: &Path, damage: Damage) -> Result<()> {
    let repo = root.join(REPO);
    let copy = repo.join(damage.quant());
    fs::create_dir_all(&copy)?;
    let mut found = false;
    for entry in fs::read_dir(repo.join(SOUND))? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .ok()
            .context("a file's name")?;
        let path = copy.join(name.replace(SOUND, damage.quant()));
        fs::copy(entry.path(), &path)?;
        let header = gguf::open_header(&path)?;
        if let Some(tensor) = header.tensor(damage.tensor()) {
            rewrite(&path, header.data_offset, tensor, damage)?;
            found = true;
        }
    }
    ensure!(found, "no shard of {SOUND} has {}", damage.tensor());
    Ok(())
}

fn rewrite(path: &Path, data_offset: u64, tensor: &TensorInfo, damage: Damage) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let start = SeekFrom::Start(data_offset + tensor.offset);
    let mut data = vec![0; usize::try_from(tensor.bytes)?];
    file.seek(start)?;
    file.read_exact(&mut data)?;
    damage.apply(&mut data, usize::try_from(tensor.rows())?)?;
    file.seek(start)?;
    file.write_all(&data)?;
    Ok(())
}
