//! The difference between a Q8_0 model and the BF16 weights it was made of, in under 3 bits per weight: how this
//! repository carries the full weights of its test model beside the quantized ones. It must not know architectures.
//!
//! A Q8_0 value `d·q` says that the weight lay within half a step of it, give or take the rounding of `d` to a half.
//! Only some BF16 numbers lie there; the residual says which one. With `n` candidates that is a digit of base `n`, and
//! digits are packed into 16-byte little-endian numbers as long as the product of their bases fits. A file is the
//! packed digits of every Q8_0 tensor, in the model's order, each tensor beginning a new number.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::path::Path;

use gguf::{Dtype, Header, Metadata, TensorInfo, TensorSpec, Value, Writer, shard};

use crate::error::Error;
use crate::{joined_metadata, stream};

/// Bytes of a Q8_0 block: the scale, then 32 signed bytes.
const BLOCK: usize = Dtype::Q8_0.block_bytes();

/// Writes to `out` what the Q8_0 model at `quantized` lost of the BF16 model at `full`.
///
/// # Errors
/// When the second was not made of the first, or has tensors that are neither F32 nor Q8_0.
pub fn make(quantized: &Path, full: &Path, out: &Path) -> Result<(), Error> {
    let full_header = gguf::open_header(full)?;
    let mut packed = Vec::new();
    for (path, header) in open(quantized)? {
        for tensor in header
            .tensors
            .iter()
            .filter(|tensor| tensor.dtype == Dtype::Q8_0)
        {
            let other = full_header
                .tensor(&tensor.name)
                .filter(|other| other.dtype == Dtype::BF16 && other.dims == tensor.dims)
                .ok_or_else(|| Error::MissingTensor(tensor.name.clone()))?;
            let blocks = read(&path, &header, tensor)?;
            let weights = read(full, &full_header, other)?;
            let mut digits = Vec::with_capacity(weights.len() / 2);
            for (range, weight) in candidates(&blocks).zip(weights.as_chunks().0) {
                let ordinal =
                    ordinal(u16::from_le_bytes(*weight)).filter(|ordinal| range.contains(ordinal));
                let ordinal = ordinal.ok_or_else(|| unrelated(full, &tensor.name))?;
                digits.push(Digit {
                    value: (ordinal - range.first) as u128,
                    base: range.count(),
                });
            }
            pack(&digits, &mut packed);
        }
    }
    fs::write(out, packed).map_err(Error::io(out))
}

/// Writes to `out` the BF16 model that the Q8_0 model at `quantized` and its residual add up to. A tensor is held in
/// memory whole.
///
/// # Errors
/// When the residual belongs to another model, or a file cannot be read or written.
pub fn restore(quantized: &Path, residual: &Path, out: &Path) -> Result<(), Error> {
    let packed = fs::read(residual).map_err(Error::io(residual))?;
    let mut packed = packed.as_slice();
    let models = open(quantized)?;
    let mut metadata = models
        .first()
        .map(|(_, header)| joined_metadata(header))
        .unwrap_or_default();
    // 32 is BF16 among the file types.
    metadata.set("general.file_type", Value::U32(32));
    stream::appear(out, |part| {
        let mut writer = start(part, &metadata, &models)?;
        let failed = |error| Error::Write {
            path: part.to_owned(),
            error,
        };
        for (path, header) in &models {
            for tensor in &header.tensors {
                let mut bytes = read(path, header, tensor)?;
                if tensor.dtype == Dtype::Q8_0 {
                    let weights = unpack(&bytes, &mut packed)
                        .ok_or_else(|| unrelated(residual, &tensor.name))?;
                    bytes = weights.into_iter().flat_map(u16::to_le_bytes).collect();
                }
                writer.append(&tensor.name, &bytes).map_err(failed)?;
            }
        }
        if !packed.is_empty() {
            return Err(unrelated(residual, "(none: bytes are left)"));
        }
        let file = writer.finish().map_err(failed)?;
        let file = file
            .into_inner()
            .map_err(|error| Error::io(part)(error.into_error()))?;
        file.sync_all().map_err(Error::io(part))
    })
}

fn unrelated(path: &Path, tensor: &str) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: format!("does not belong to this Q8_0 model: tensor {tensor}"),
    }
}

fn open(model: &Path) -> Result<Vec<(std::path::PathBuf, Header)>, Error> {
    let mut opened = Vec::new();
    for path in shard::find_shards(model)? {
        let header = gguf::open_header(&path)?;
        for tensor in &header.tensors {
            if !matches!(tensor.dtype, Dtype::Q8_0 | Dtype::F32) {
                return Err(Error::SourceType {
                    tensor: tensor.name.clone(),
                    dtype: tensor.dtype.name().to_owned(),
                });
            }
        }
        opened.push((path, header));
    }
    Ok(opened)
}

fn start(
    path: &Path,
    metadata: &Metadata,
    models: &[(std::path::PathBuf, Header)],
) -> Result<Writer<BufWriter<File>>, Error> {
    let tensors = models.iter().flat_map(|(_, header)| &header.tensors);
    let specs: Vec<TensorSpec> = tensors
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            dtype: if tensor.dtype == Dtype::Q8_0 {
                Dtype::BF16
            } else {
                tensor.dtype
            },
        })
        .collect();
    let file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    Writer::new(file, metadata, &specs).map_err(|error| Error::Write {
        path: path.to_owned(),
        error,
    })
}

fn read(path: &Path, header: &Header, tensor: &TensorInfo) -> Result<Vec<u8>, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    file.seek(SeekFrom::Start(header.data_offset + tensor.offset))
        .map_err(Error::io(path))?;
    let mut bytes = vec![0; tensor.bytes as usize];
    file.read_exact(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// The place of a BF16 number in their order: consecutive integers, 0 for zero. A negative zero has none, because no
/// residual could tell it from zero.
fn ordinal(bits: u16) -> Option<i32> {
    let magnitude = i32::from(bits & 0x7fff);
    match bits >> 15 {
        0 => Some(magnitude),
        _ if magnitude == 0 => None,
        _ => Some(-magnitude),
    }
}

/// The inverse of [`ordinal`].
fn bits(ordinal: i32) -> u16 {
    let sign = if ordinal < 0 { 0x8000 } else { 0 };
    sign | ordinal.unsigned_abs() as u16
}

/// The ordinal of the largest BF16 number that is not above `value`.
fn floor(value: f32) -> i32 {
    let bits = value.to_bits();
    let magnitude = (bits >> 16 & 0x7fff) as i32;
    let cut = i32::from(bits & 0xffff != 0);
    if value.is_sign_negative() {
        -magnitude - cut
    } else {
        magnitude
    }
}

/// Ordinals from `first` to `last`, both included.
#[derive(Clone, Copy)]
struct Candidates {
    first: i32,
    last: i32,
}

impl Candidates {
    fn contains(&self, ordinal: &i32) -> bool {
        (self.first..=self.last).contains(ordinal)
    }

    fn count(&self) -> u128 {
        (self.last - self.first).max(0) as u128 + 1
    }
}

/// For each value of Q8_0 blocks, the BF16 numbers that may have become it.
fn candidates(blocks: &[u8]) -> impl Iterator<Item = Candidates> {
    blocks.as_chunks::<BLOCK>().0.iter().flat_map(|block| {
        let scale = u16::from_le_bytes([block[0], block[1]]);
        let d = half(scale);
        block[2..].iter().map(move |byte| {
            let q = f64::from(byte.cast_signed());
            // Half a step, and 2⁻¹¹ of the value: that is how far rounding `d` to a half may have moved it.
            let slack = 0.5 + q.abs() * (1.001 / 2048.0);
            let [low, high] = [q - slack, q + slack].map(|level| (level * d) as f32);
            Candidates {
                first: -floor(-low),
                last: floor(high),
            }
        })
    })
}

/// The value of a half.
fn half(bits: u16) -> f64 {
    let mut value = [0.0];
    if let Some(kernels) = quant::kernels(Dtype::F16) {
        (kernels.dequantize)(&bits.to_le_bytes(), &mut value);
    }
    f64::from(value[0])
}

#[derive(Clone, Copy)]
struct Digit {
    value: u128,
    base: u128,
}

/// How many of the digits with these bases fit into one number, and at least one.
fn fitting(bases: impl Iterator<Item = u128>) -> usize {
    let mut product = 1u128;
    let fit = bases.take_while(|base| match product.checked_mul(*base) {
        Some(larger) => {
            product = larger;
            true
        }
        None => false,
    });
    fit.count().max(1)
}

fn pack(digits: &[Digit], packed: &mut Vec<u8>) {
    let mut rest = digits;
    while !rest.is_empty() {
        let (group, others) = rest.split_at(fitting(rest.iter().map(|digit| digit.base)));
        let number = group
            .iter()
            .rev()
            .fold(0, |number, digit| number * digit.base + digit.value);
        packed.extend_from_slice(&u128::to_le_bytes(number));
        rest = others;
    }
}

/// The weights of one tensor, taking its numbers off `packed`; `None` when they do not fit its blocks.
fn unpack(blocks: &[u8], packed: &mut &[u8]) -> Option<Vec<u16>> {
    let candidates: Vec<Candidates> = candidates(blocks).collect();
    let mut weights = Vec::with_capacity(candidates.len());
    let mut rest = candidates.as_slice();
    while !rest.is_empty() {
        let (group, others) = rest.split_at(fitting(rest.iter().map(Candidates::count)));
        let (number, left) = packed.split_first_chunk::<16>()?;
        let mut number = u128::from_le_bytes(*number);
        for candidates in group {
            // A remainder below the count of candidates, which is below 2¹⁷.
            weights.push(bits(
                candidates.first + (number % candidates.count()) as i32,
            ));
            number /= candidates.count();
        }
        if number != 0 {
            return None;
        }
        (rest, *packed) = (others, left);
    }
    Some(weights)
}
