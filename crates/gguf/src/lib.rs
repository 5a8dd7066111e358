//! GGUF: the format's types, a bounded reader, a streaming writer, split files.
