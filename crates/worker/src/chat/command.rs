//! What a line means: a message, or a command with a slash. It must not know what commands do.

use std::path::PathBuf;

/// Shown for `/help`.
pub(crate) const HELP: &str = "\
/system [TEXT]  show or set what the model is told first
/reset          forget the conversation, keep the system message
/regen          answer the last question again
/think on|off   let the model think first, where it leaves the choice
/save FILE      write the conversation as JSON
/load FILE      go on with a saved conversation
/exit           leave; so does Ctrl-D
Ctrl-C stops an answer, arrows edit a line and bring earlier ones back.
A line that ends in \\ goes on in the next one; // at the beginning sends a slash.";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Say(String),
    Help,
    System(Option<String>),
    Reset,
    Regenerate,
    Think(bool),
    Save(PathBuf),
    Load(PathBuf),
    Exit,
}

/// Why a line is no command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("there is no command {0}; /help lists them, and // at the beginning sends a slash")]
    Unknown(String),
    #[error("{0}")]
    Usage(&'static str),
}

pub(crate) fn parse(line: &str) -> Result<Command, CommandError> {
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(Command::Say(line.to_owned()));
    };
    if rest.starts_with('/') {
        return Ok(Command::Say(rest.to_owned()));
    }
    let (word, argument) = rest
        .split_once(char::is_whitespace)
        .map_or((rest, ""), |(word, argument)| (word, argument.trim()));
    let file = |usage: &'static str| match argument {
        "" => Err(CommandError::Usage(usage)),
        path => Ok(PathBuf::from(path)),
    };
    match word.trim() {
        "help" | "?" => Ok(Command::Help),
        "system" => Ok(Command::System(
            (!argument.is_empty()).then(|| argument.to_owned()),
        )),
        "reset" => Ok(Command::Reset),
        "regen" => Ok(Command::Regenerate),
        "think" => match argument {
            "on" => Ok(Command::Think(true)),
            "off" => Ok(Command::Think(false)),
            _ => Err(CommandError::Usage("say /think on or /think off")),
        },
        "save" => file("say where: /save FILE").map(Command::Save),
        "load" => file("say what: /load FILE").map(Command::Load),
        "exit" | "quit" | "bye" => Ok(Command::Exit),
        other => Err(CommandError::Unknown(format!("/{other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let say = |text: &str| Ok(Command::Say(text.to_owned()));
        for (line, command) in [
            ("hello", say("hello")),
            (" /help", say(" /help")),
            ("//etc", say("/etc")),
            ("/help", Ok(Command::Help)),
            ("/system", Ok(Command::System(None))),
            (
                "/system  Be brief. ",
                Ok(Command::System(Some("Be brief.".to_owned()))),
            ),
            ("/regen", Ok(Command::Regenerate)),
            ("/think off", Ok(Command::Think(false))),
            ("/save a b.json", Ok(Command::Save("a b.json".into()))),
            ("/exit", Ok(Command::Exit)),
            (
                "/nonsense x",
                Err(CommandError::Unknown("/nonsense".to_owned())),
            ),
        ] {
            assert_eq!(parse(line), command, "{line}");
        }
        for line in ["/save", "/load ", "/think", "/think maybe"] {
            assert!(matches!(parse(line), Err(CommandError::Usage(_))), "{line}");
        }
    }
}
