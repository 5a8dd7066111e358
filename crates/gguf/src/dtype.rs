//! The one table of tensor types: name, ggml id, block shape and row prefix of every mainline and ik type.
//! It must not know how a type is decoded; that is the `quant` crate's business.

use std::fmt;
use std::str::FromStr;

/// Expands the table below into the enum and its accessors, so that a type is one line and nothing can disagree.
macro_rules! table {
    ($($variant:ident $id:literal $values:literal $bytes:literal $prefix:literal;)*) => {
        /// A tensor's storage type.
        ///
        /// Variants are spelled as the type's public name (`Q4_K`), which is also what [`Dtype::name`] returns.
        /// The enum is exhaustive on purpose: a new row makes every match that must handle it fail to compile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types)]
        pub enum Dtype {
            $($variant,)*
        }

        impl Dtype {
            /// Every type, in the order of the ids.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$variant,)*];

            /// The type with this id in a GGUF tensor table.
            pub const fn from_id(id: u32) -> Option<Dtype> {
                match id {
                    $($id => Some(Dtype::$variant),)*
                    _ => None,
                }
            }

            /// The id in a GGUF tensor table.
            pub const fn id(self) -> u32 {
                match self {
                    $(Dtype::$variant => $id,)*
                }
            }

            /// The public name, for example `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Dtype::$variant => stringify!($variant),)*
                }
            }

            /// Values in one block. A row's length must be a multiple of this.
            pub const fn block_values(self) -> usize {
                match self {
                    $(Dtype::$variant => $values,)*
                }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Dtype::$variant => $bytes,)*
                }
            }

            /// Bytes that precede the blocks of each row (a scale for the whole row); 0 for most types.
            pub const fn row_prefix_bytes(self) -> usize {
                match self {
                    $(Dtype::$variant => $prefix,)*
                }
            }
        }
    };
}

// Provenance: mainline ids and sizes are those of ggml.h and ggml-common.h (and of the `gguf` Python package);
// ids from 133 on belong to the ik_llama.cpp fork. `Q8_1`, `Q8_K` hold activations and are not expected in files.
//
// name     id  block values  block bytes  row prefix bytes
table! {
    F32      0    1    4  0;
    F16      1    1    2  0;
    Q4_0     2   32   18  0;
    Q4_1     3   32   20  0;
    Q5_0     6   32   22  0;
    Q5_1     7   32   24  0;
    Q8_0     8   32   34  0;
    Q8_1     9   32   36  0;
    Q2_K    10  256   84  0;
    Q3_K    11  256  110  0;
    Q4_K    12  256  144  0;
    Q5_K    13  256  176  0;
    Q6_K    14  256  210  0;
    Q8_K    15  256  292  0;
    IQ2_XXS 16  256   66  0;
    IQ2_XS  17  256   74  0;
    IQ3_XXS 18  256   98  0;
    IQ1_S   19  256   50  0;
    IQ4_NL  20   32   18  0;
    IQ3_S   21  256  110  0;
    IQ2_S   22  256   82  0;
    IQ4_XS  23  256  136  0;
    I8      24    1    1  0;
    I16     25    1    2  0;
    I32     26    1    4  0;
    I64     27    1    8  0;
    F64     28    1    8  0;
    IQ1_M   29  256   56  0;
    BF16    30    1    2  0;
    TQ1_0   34  256   54  0;
    TQ2_0   35  256   66  0;
    MXFP4   39   32   17  0;
    NVFP4   40   64   36  0;
    Q1_0    41  128   18  0;
    Q2_0    42   64   18  0;
    Q6_0   133   32   26  0;
    IQ2_K  137  256   76  0;
    IQ3_K  138  256  110  0;
    IQ4_K  139  256  144  0;
    IQ5_K  140  256  176  0;
    IQ6_K  141  256  212  0;
    IQ4_KS 144  256  136  4;
    IQ2_KS 145  256   70  2;
    IQ4_KSS 146 256  128  4;
    IQ5_KS 152  256  168  4;
    IQ2_KT 153  256   68  4;
    IQ3_KT 154  256  100  4;
    IQ4_KT 155  256  128  4;
    IQ3_KS 156  256  102  2;
    IQ2_KL 157  256   86  2;
    IQ1_KT 158  256   56  4;
}

impl Dtype {
    /// Bytes of one row of `values` values, or `None` when the row is not a whole number of blocks or overflows.
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block_values()) {
            return None;
        }
        (values / self.block_values())
            .checked_mul(self.block_bytes())?
            .checked_add(self.row_prefix_bytes())
    }

    /// Bytes of a whole tensor with dimensions `dims` (`dims[0]` is the row length), or `None` as for
    /// [`Dtype::row_bytes`].
    pub fn tensor_bytes(self, dims: &[u64]) -> Option<u64> {
        let (row, outer) = dims.split_first()?;
        let row = u64::try_from(self.row_bytes(usize::try_from(*row).ok()?)?).ok()?;
        outer
            .iter()
            .try_fold(row, |bytes, dim| bytes.checked_mul(*dim))
    }

    /// Mean bits per value, row prefixes left out.
    pub fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_values() as f64
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no type's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a tensor type (types are named like Q4_K, IQ4_XS, BF16)")]
pub struct UnknownDtype(pub String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    /// Parses a public name, in any case.
    fn from_str(text: &str) -> Result<Dtype, UnknownDtype> {
        Dtype::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownDtype(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_and_names_lead_back_to_the_type() {
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_id(dtype.id()), Some(dtype));
            assert_eq!(dtype.name().to_lowercase().parse(), Ok(dtype));
        }
        assert!(
            Dtype::ALL
                .windows(2)
                .all(|pair| pair[0].id() < pair[1].id())
        );
    }

    #[test]
    fn removed_and_unknown_ids_have_no_type() {
        for id in [4, 5, 31, 36, 43, 132, 999, u32::MAX] {
            assert_eq!(Dtype::from_id(id), None);
        }
        assert!("Q4_X".parse::<Dtype>().is_err());
    }

    /// Bits per value as published for each type: a typing slip in the table shows here.
    #[test]
    fn published_bits_per_value() {
        let published = [
            (Dtype::Q8_0, 8.5),
            (Dtype::Q2_K, 2.625),
            (Dtype::Q3_K, 3.4375),
            (Dtype::Q4_K, 4.5),
            (Dtype::Q5_K, 5.5),
            (Dtype::Q6_K, 6.5625),
            (Dtype::IQ1_S, 1.5625),
            (Dtype::IQ1_M, 1.75),
            (Dtype::IQ2_XXS, 2.0625),
            (Dtype::IQ3_XXS, 3.0625),
            (Dtype::IQ4_XS, 4.25),
            (Dtype::TQ1_0, 1.6875),
            (Dtype::MXFP4, 4.25),
            (Dtype::IQ5_KS, 5.25),
            (Dtype::IQ1_KT, 1.75),
        ];
        for (dtype, bits) in published {
            assert_eq!(dtype.bits_per_value(), bits, "{dtype}");
        }
    }

    #[test]
    fn sizes_of_rows_and_tensors() {
        assert_eq!(Dtype::Q4_K.row_bytes(512), Some(288));
        assert_eq!(Dtype::Q4_K.row_bytes(128), None);
        assert_eq!(Dtype::IQ4_KS.row_bytes(256), Some(140));
        assert_eq!(Dtype::Q8_0.tensor_bytes(&[64, 256, 4]), Some(69_632));
        assert_eq!(Dtype::F32.tensor_bytes(&[u64::MAX / 2, 3]), None);
        assert_eq!(Dtype::F32.tensor_bytes(&[]), None);
    }
}
