//! Value tables that types share. It must not know the types' layouts.

/// The 16 non-linear levels of IQ4_NL and IQ4_XS, denser near zero as trained weights are (ggml-common.h).
pub(crate) const IQ4_NL: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
