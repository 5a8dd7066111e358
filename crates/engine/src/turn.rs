//! What an assistant's turn says, taken apart as it comes: thoughts, text, calls of tools. Kimi marks
//! them with special tokens, so text that only looks like a mark stays text. Models forget marks and
//! make up names; whatever they do, each character goes somewhere and nothing is refused. It must not
//! know HTTP.

use std::collections::HashSet;

use crate::{
    ChatMessage, Tokenizer, ToolCall,
    chat::{call_id, call_index, numbered},
};

/// A piece of an assistant's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Thoughts, not meant for the user.
    Reasoning(String),
    /// Text for the user.
    Content(String),
    /// A call begins; its arguments follow.
    Call {
        /// `functions.NAME:INDEX`, unlike any other of the conversation.
        id: String,
        /// The function as the model wrote it, declared or not.
        name: String,
    },
    /// More of the arguments of the call that began last, as JSON text.
    Arguments(String),
}

/// Where the model is in its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Reasoning,
    Content,
    /// Inside a section of calls, between two of them.
    Section,
    /// The name of a call is being written.
    Name(String),
    Arguments {
        is_empty: bool,
    },
}

/// The marks, by the names Kimi's files give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Think,
    EndThink,
    Section,
    EndSection,
    Call,
    Arguments,
    EndCall,
}

const MARKS: [(&str, Mark); 7] = [
    ("<think>", Mark::Think),
    ("</think>", Mark::EndThink),
    ("<|tool_calls_section_begin|>", Mark::Section),
    ("<|tool_calls_section_end|>", Mark::EndSection),
    ("<|tool_call_begin|>", Mark::Call),
    ("<|tool_call_argument_begin|>", Mark::Arguments),
    ("<|tool_call_end|>", Mark::EndCall),
];

/// Takes one turn apart.
#[derive(Debug, Clone)]
pub struct TurnParser {
    marks: Vec<(u32, Mark)>,
    state: State,
    /// Ids of the conversation's calls.
    taken: HashSet<String>,
    /// The index for a call that does not bring a good one.
    next_index: u64,
}

impl TurnParser {
    /// For the answer to `prompt`, which was made of `messages`.
    pub fn new(tokenizer: &Tokenizer, prompt: &[u32], messages: &[ChatMessage]) -> Self {
        let marks: Vec<(u32, Mark)> = MARKS
            .iter()
            .filter_map(|(name, mark)| Some((tokenizer.special(name)?, *mark)))
            .collect();
        // Some templates open the thoughts themselves.
        let opens = marks
            .iter()
            .any(|(id, mark)| *mark == Mark::Think && prompt.last() == Some(id));
        let messages = numbered(messages);
        let calls = || messages.iter().flat_map(|message| &message.tool_calls);
        Self {
            marks,
            state: if opens {
                State::Reasoning
            } else {
                State::Content
            },
            taken: calls().map(|call| call.id.clone()).collect(),
            next_index: calls()
                .filter_map(|call| call_index(&call.id))
                .map(|index| index + 1)
                .max()
                .unwrap_or(0),
        }
    }

    /// The next token of the turn, and the text that came with it.
    pub fn push(&mut self, id: u32, text: &str) -> Option<Part> {
        match self.marks.iter().find(|(mark, _)| *mark == id) {
            Some((_, mark)) => self.mark(*mark),
            None => self.text(text),
        }
    }

    /// What is left when the turn ends. A call whose name was still being written is lost.
    pub fn finish(&mut self) -> Option<Part> {
        self.close(State::Content)
    }

    fn text(&mut self, text: &str) -> Option<Part> {
        let text = match self.state {
            // Line breaks between calls mean nothing; anything else was not meant to be in here.
            State::Section => text.trim_start(),
            _ => text,
        };
        if text.is_empty() {
            return None;
        }
        match &mut self.state {
            State::Reasoning => Some(Part::Reasoning(text.to_owned())),
            State::Content => Some(Part::Content(text.to_owned())),
            State::Section => {
                self.state = State::Content;
                Some(Part::Content(text.to_owned()))
            }
            State::Name(name) => {
                name.push_str(text);
                None
            }
            State::Arguments { is_empty } => {
                *is_empty = false;
                Some(Part::Arguments(text.to_owned()))
            }
        }
    }

    fn mark(&mut self, mark: Mark) -> Option<Part> {
        match mark {
            Mark::Think => self.close(State::Reasoning),
            Mark::EndThink => match self.state {
                State::Reasoning => self.close(State::Content),
                _ => None,
            },
            // Also in the midst of thoughts: models forget to end them.
            Mark::Section => self.close(State::Section),
            Mark::Call => self.close(State::Name(String::new())),
            Mark::Arguments => match std::mem::replace(&mut self.state, State::Section) {
                State::Name(name) => {
                    self.state = State::Arguments { is_empty: true };
                    Some(self.call(&name))
                }
                other => {
                    self.state = other;
                    None
                }
            },
            Mark::EndCall => match self.state {
                State::Name(_) | State::Arguments { .. } => self.close(State::Section),
                _ => None,
            },
            Mark::EndSection => match self.state {
                State::Reasoning => None,
                _ => self.close(State::Content),
            },
        }
    }

    /// Goes over to another state, with what the one before still owes.
    fn close(&mut self, to: State) -> Option<Part> {
        match std::mem::replace(&mut self.state, to) {
            // Clients read arguments as JSON.
            State::Arguments { is_empty: true } => Some(Part::Arguments("{}".to_owned())),
            _ => None,
        }
    }

    /// The call that a head `functions.NAME:INDEX` begins.
    fn call(&mut self, head: &str) -> Part {
        let head = head.trim();
        let is_number =
            |index: &str| !index.is_empty() && index.bytes().all(|digit| digit.is_ascii_digit());
        let (name, index) = match head.rsplit_once(':') {
            Some((name, index)) if is_number(index) => (name, index.parse::<u32>().ok()),
            _ => (head, None),
        };
        let name = name.strip_prefix("functions.").unwrap_or(name).to_owned();
        let id = index
            .map(|index| call_id(&name, index.into()))
            .filter(|id| !self.taken.contains(id))
            .unwrap_or_else(|| call_id(&name, self.next_index));
        let index = call_index(&id).unwrap_or(self.next_index);
        self.next_index = self.next_index.max(index + 1);
        self.taken.insert(id.clone());
        Part::Call { id, name }
    }
}

/// A turn put together from its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// All thoughts.
    pub reasoning: String,
    /// All text for the user.
    pub content: String,
    /// Calls in order.
    pub calls: Vec<ToolCall>,
}

impl Extend<Part> for Turn {
    fn extend<T: IntoIterator<Item = Part>>(&mut self, parts: T) {
        for part in parts {
            match part {
                Part::Reasoning(text) => self.reasoning.push_str(&text),
                Part::Content(text) => self.content.push_str(&text),
                Part::Call { id, name } => self.calls.push(ToolCall {
                    id,
                    name,
                    arguments: String::new(),
                }),
                Part::Arguments(text) => {
                    // Arguments follow a call.
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
    }
}

impl Turn {
    /// The turn as a message of the conversation.
    pub fn into_message(self) -> ChatMessage {
        let text = |text: String| (!text.is_empty()).then_some(text);
        ChatMessage {
            role: "assistant".to_owned(),
            content: text(self.content),
            reasoning_content: text(self.reasoning),
            tool_calls: self.calls,
            ..ChatMessage::default()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
