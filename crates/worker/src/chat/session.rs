//! The conversation so far: what is kept, forgotten, saved and loaded. It must not know terminals.

use std::{fs, path::Path};

use anyhow::Context;
use engine::ChatMessage;

use super::wire::WireMessage;

/// Largest saved conversation that is read.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) messages: Vec<ChatMessage>,
}

impl Session {
    /// The system message, when the conversation starts with one.
    pub(crate) fn system(&self) -> Option<&str> {
        let first = self.messages.first()?;
        (first.role == "system").then_some(first.content.as_deref())?
    }

    pub(crate) fn set_system(&mut self, text: &str) {
        let system = ChatMessage::new("system", text);
        match self.messages.first_mut() {
            Some(first) if first.role == "system" => *first = system,
            _ => self.messages.insert(0, system),
        }
    }

    /// Forgets everything but the system message.
    pub(crate) fn reset(&mut self) {
        let keep = usize::from(self.system().is_some());
        self.messages.truncate(keep);
    }

    /// Goes back to where the last question waits for its answer.
    pub(crate) fn drop_answer(&mut self) -> anyhow::Result<()> {
        let asked = self
            .messages
            .iter()
            .rposition(|message| message.role == "user");
        let asked = asked.context("there is no question yet")?;
        self.messages.truncate(asked + 1);
        Ok(())
    }

    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let messages: Vec<WireMessage> = self.messages.iter().map(WireMessage::from).collect();
        let json = serde_json::to_string_pretty(&messages)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot read a conversation from {}", path.display());
        let bytes = fs::metadata(path).with_context(failed)?.len();
        if bytes > MAX_BYTES {
            let words = format!("{bytes} bytes; at most {MAX_BYTES} are read");
            return Err(anyhow::anyhow!(words)).with_context(failed);
        }
        let json = fs::read_to_string(path).with_context(failed)?;
        let messages: Vec<WireMessage> = serde_json::from_str(&json).with_context(failed)?;
        Ok(Self {
            messages: messages.into_iter().map(ChatMessage::from).collect(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use engine::ToolCall;

    use super::*;

    fn session() -> Session {
        Session {
            messages: vec![
                ChatMessage::new("system", "Be brief."),
                ChatMessage::new("user", "Hi"),
                ChatMessage {
                    content: None,
                    reasoning_content: Some("hm".to_owned()),
                    tool_calls: vec![ToolCall {
                        id: "functions.f:0".to_owned(),
                        name: "f".to_owned(),
                        arguments: "{}".to_owned(),
                    }],
                    ..ChatMessage::new("assistant", "")
                },
            ],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.json");
        session().save(&path).unwrap();
        assert_eq!(Session::load(&path).unwrap().messages, session().messages);
        fs::write(&path, "[{").unwrap();
        let error = format!("{:#}", Session::load(&path).unwrap_err());
        assert!(error.contains("chat.json"), "{error}");
    }

    #[test]
    fn reset_keeps_the_system_message_and_regen_the_question() {
        let mut session = session();
        session.drop_answer().unwrap();
        assert_eq!(session.messages.len(), 2);
        session.drop_answer().unwrap();
        assert_eq!(session.messages.len(), 2);
        session.set_system("Be long.");
        session.reset();
        assert_eq!(session.messages, [ChatMessage::new("system", "Be long.")]);
        assert!(session.drop_answer().is_err());
        let mut empty = Session::default();
        empty.reset();
        assert_eq!(empty.system(), None);
        empty.set_system("x");
        assert_eq!(empty.system(), Some("x"));
    }
}
