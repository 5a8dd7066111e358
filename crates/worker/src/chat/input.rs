//! Where the user's lines come from: a terminal, with editing and a history, or a pipe. It must not know commands.

use std::{
    io::{self, BufRead, IsTerminal, Read},
    thread,
};

use rustyline::{Behavior, Config, DefaultEditor, error::ReadlineError};
use tokio::{runtime::Runtime, sync::mpsc};

/// Longest line taken.
const MAX_LINE: u64 = 16 << 20;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    Interrupted,
    End,
}

pub(crate) enum Input {
    Terminal(Box<DefaultEditor>),
    /// From a thread of its own: a read cannot be given up when Ctrl-C comes.
    Pipe(mpsc::Receiver<io::Result<String>>),
}

impl Input {
    /// A terminal where one can be typed into and prompted on; else whatever standard input is.
    pub(crate) fn new() -> anyhow::Result<Self> {
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            // Prompts must not end up in a file that answers go to.
            let config = Config::builder().behavior(Behavior::PreferTerm).build();
            return Ok(Self::Terminal(Box::new(DefaultEditor::with_config(
                config,
            )?)));
        }
        let (sender, lines) = mpsc::channel(1);
        thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            while let Some(line) = read(&mut stdin).transpose() {
                let is_over = line.is_err();
                if sender.blocking_send(line).is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Self::Pipe(lines))
    }

    /// Whether somebody sits there.
    pub(crate) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line, joined with those that it goes on in.
    pub(crate) fn next(&mut self, runtime: &Runtime) -> anyhow::Result<Line> {
        let mut whole = String::new();
        loop {
            let prompt = if whole.is_empty() { "> " } else { "… " };
            let line = match self.line(prompt, runtime)? {
                Line::Text(line) => line,
                Line::End if !whole.is_empty() => return Ok(Line::Text(whole)),
                other => return Ok(other),
            };
            match line.strip_suffix('\\') {
                Some(begun) => {
                    whole.push_str(begun);
                    whole.push('\n');
                }
                None => {
                    whole.push_str(&line);
                    return Ok(Line::Text(whole));
                }
            }
        }
    }

    fn line(&mut self, prompt: &str, runtime: &Runtime) -> anyhow::Result<Line> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error.into()),
            },
            Self::Pipe(lines) => runtime.block_on(async {
                tokio::select! {
                    line = lines.recv() => match line.transpose()? {
                        Some(line) => Ok(Line::Text(line)),
                        None => Ok(Line::End),
                    },
                    _ = tokio::signal::ctrl_c() => Ok(Line::Interrupted),
                }
            }),
        }
    }
}

/// One line without its end; nothing when there are no more.
fn read(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let invalid = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    let mut bytes = Vec::new();
    let mut limited = input.take(MAX_LINE);
    if limited.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') && limited.limit() == 0 {
        return Err(invalid(format!("a line is longer than {MAX_LINE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid("the input is not UTF-8".into()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_either_way_and_have_a_limit() {
        let mut input = &b"a\r\nb\n\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["a", "b", "", "last"]);
        assert!(read(&mut &b"\xff\n"[..]).is_err());
        let long = vec![b'x'; MAX_LINE as usize + 1];
        assert!(read(&mut &long[..]).is_err());
    }
}
