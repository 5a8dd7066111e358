//! What others send us, as functions of bytes: each takes an input of one kind through the code that reads such
//! inputs, and panics where that breaks a promise. `tests/inputs.rs` calls them with changed corpora and watches memory;
//! the targets in `libfuzzer/` are the same functions for a fuzzer that watches coverage. Nothing depends on this crate.
#![forbid(unsafe_code)]

mod body;
mod header;
mod model;
pub mod mutate;
mod safetensors;
mod template;
mod tokenizer;

use std::{fs, io, path::Path};

/// A kind of input.
#[derive(Debug)]
pub struct Target {
    /// What the folder of its corpus is called.
    pub name: &'static str,
    /// Takes an input; panics where it should not have gone as it went.
    pub run: fn(&[u8]),
    /// Pieces that such inputs are made of.
    pub words: &'static [&'static str],
    /// Most bytes of memory per byte of input, and beside that.
    pub memory: (usize, usize),
}

/// A GGUF file.
pub const HEADER: Target = Target {
    name: "header",
    run: header::run,
    words: &["GGUF", "split.count", "general.alignment"],
    // A list of empty strings costs the most: 8 bytes in the file, 24 in memory, and the list doubles as it grows.
    memory: (16, 64 << 10),
};

/// What a model's file says, the file itself being sound.
pub const MODEL: Target = Target {
    name: "model",
    run: model::run,
    words: model::WORDS,
    // The file that is made of the input, and what is computed with.
    memory: (1024, 8 << 20),
};

/// A safetensors file.
pub const SAFETENSORS: Target = Target {
    name: "safetensors",
    run: safetensors::run,
    words: safetensors::WORDS,
    // A list of numbers costs the most: two bytes each in the file.
    memory: (128, 64 << 10),
};

/// The tables of a tokenizer.
pub const TOKENIZER: Target = Target {
    name: "tokenizer",
    run: tokenizer::run,
    words: tokenizer::WORDS,
    // Beside the input stand the tokens of all bytes.
    memory: (128, 256 << 10),
};

/// A chat template.
pub const TEMPLATE: Target = Target {
    name: "template",
    run: template::run,
    words: template::WORDS,
    // Instructions of a template, and what it renders of a short conversation.
    memory: (1024, 4 << 20),
};

/// The JSON of a request, to every route that takes one.
pub const BODY: Target = Target {
    name: "body",
    run: body::run,
    words: body::WORDS,
    // Grammars of schemas.
    memory: (1024, 16 << 20),
};

impl Target {
    /// The committed inputs, in order of their names.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn corpus(&self) -> io::Result<Vec<Vec<u8>>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(self.name);
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            paths.push(entry?.path());
        }
        paths.sort();
        paths.iter().map(fs::read).collect()
    }
}
