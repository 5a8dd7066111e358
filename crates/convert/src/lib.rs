//! Safetensors to GGUF, and GGUF splitting.
