//! Pure sizing: disk, RAM, VRAM, time, from tables or from a GGUF tensor table; does no I/O.
