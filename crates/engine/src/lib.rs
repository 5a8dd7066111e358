//! The Kimi forward pass on this machine: tokenizer, template, KV cache, sampling, scheduling.
