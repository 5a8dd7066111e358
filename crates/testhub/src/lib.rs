//! Development only: a Hugging Face hub stand-in that serves a directory and injects faults.
