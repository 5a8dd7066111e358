//! Quantized tensor types: block layouts and kernels.
