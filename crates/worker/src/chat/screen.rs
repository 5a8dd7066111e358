//! What the user sees: answers on standard output, everything else on standard error, dimmed where that
//! is a terminal that can. It must not know where text comes from, and trusts none of it: a model's
//! text must not steer the terminal.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use engine::Part;

pub(crate) struct Screen {
    quiet: bool,
    dims: bool,
    shown: Shown,
}

/// What the cursor stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Thoughts,
    Answer,
    Call,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        let can = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            quiet,
            dims: can && io::stderr().is_terminal(),
            shown: Shown::Nothing,
        }
    }

    /// Shows a part of the answer as it comes.
    pub(crate) fn part(&mut self, part: &Part) {
        match part {
            Part::Content(text) => {
                self.turn_to(Shown::Answer);
                out(&printable(text));
            }
            Part::Reasoning(text) => self.aside(Shown::Thoughts, &printable(text)),
            Part::Call { name, .. } => {
                self.end_of_answer();
                self.aside(Shown::Call, &format!("calls {}", printable(name)));
            }
            Part::Arguments(text) => self.aside(Shown::Call, &printable(text)),
        }
    }

    /// Ends the line the answer stands on.
    pub(crate) fn end_of_answer(&mut self) {
        self.turn_to(Shown::Nothing);
    }

    /// A word of the program's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.end_of_answer();
        self.aside(Shown::Nothing, &format!("{}\n", printable(text)));
    }

    pub(crate) fn error(&mut self, text: &str) {
        self.end_of_answer();
        err(&format!("error: {}\n", printable(text)));
    }

    fn aside(&mut self, shown: Shown, text: &str) {
        if self.quiet {
            return;
        }
        self.turn_to(shown);
        if self.dims {
            err(&format!("\x1b[2m{text}\x1b[22m"));
        } else {
            err(text);
        }
    }

    fn turn_to(&mut self, shown: Shown) {
        if self.shown == shown {
            return;
        }
        match self.shown {
            Shown::Nothing => {}
            Shown::Answer => out("\n"),
            Shown::Thoughts | Shown::Call => err("\n"),
        }
        self.shown = shown;
    }
}

/// Text without the characters that would steer a terminal.
fn printable(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(safe).collect()
}

/// A reader that is gone ends the program at its next read, not here.
fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    _ = stdout.write_all(text.as_bytes());
    _ = stdout.flush();
}

fn err(text: &str) {
    _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_steer_the_terminal() {
        assert_eq!(printable("a\n\tb é好🙂"), "a\n\tb é好🙂");
        assert_eq!(
            printable("\x1b[2J\x07\r\u{9b}x"),
            "\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}x"
        );
    }
}
