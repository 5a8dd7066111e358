//! Who answers: the engine in this process or a server. It must not know terminals.

use std::{fmt, time::Instant};

use engine::{ChatMessage, Part};

use super::{local::Local, remote::Remote};

/// How the answer shall be.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) temperature: Option<f32>,
    pub(crate) seed: Option<u64>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) thinking: Option<bool>,
}

pub(crate) enum Backend {
    Local(Local),
    Remote(Remote),
}

impl Backend {
    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Local(local) => local.name(),
            Self::Remote(remote) => remote.name(),
        }
    }

    /// Answers the conversation, part by part. Dropping the future ends the answer.
    pub(crate) async fn answer(
        &self,
        messages: &[ChatMessage],
        wishes: &Wishes,
        show: &mut dyn FnMut(Part),
    ) -> anyhow::Result<Speed> {
        match self {
            Self::Local(local) => local.answer(messages, wishes, show).await,
            Self::Remote(remote) => remote.answer(messages, wishes, show).await,
        }
    }
}

/// How fast an answer came, as the user saw it.
#[derive(Debug)]
pub(crate) struct Speed {
    begun: Instant,
    first: Option<Instant>,
    last: Instant,
    usage: Option<(u32, u32)>,
    is_cut: bool,
}

impl Speed {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            first: None,
            last: now,
            usage: None,
            is_cut: false,
        }
    }

    /// Something came.
    pub(crate) fn tick(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
    }

    /// Tokens of the prompt and of the answer.
    pub(crate) fn count(&mut self, prompt: u32, answer: u32) {
        self.usage = Some((prompt, answer));
    }

    /// The answer is longer than was allowed.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.unwrap_or(self.last);
        if let Some((prompt, answer)) = self.usage {
            write!(f, "{answer} tokens")?;
            // The first token comes with the prompt and has no time of its own.
            let seconds = self.last.duration_since(first).as_secs_f64();
            let timed = answer.saturating_sub(1);
            if timed > 0 && seconds > 0.0 {
                write!(f, ", {:.1} t/s", f64::from(timed) / seconds)?;
            }
            write!(f, " · prompt {prompt} tokens, ")?;
        }
        let wait = first.duration_since(self.begun).as_secs_f64();
        write!(f, "first after {wait:.2} s")?;
        if self.is_cut {
            write!(f, " · cut short: the limit or the context is used up")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_token_is_no_speed() {
        let begun = Instant::now();
        let mut speed = Speed {
            begun,
            first: Some(begun + Duration::from_millis(500)),
            last: begun + Duration::from_millis(1500),
            usage: Some((7, 11)),
            is_cut: false,
        };
        assert_eq!(
            speed.to_string(),
            "11 tokens, 10.0 t/s · prompt 7 tokens, first after 0.50 s"
        );
        speed.usage = Some((7, 1));
        assert_eq!(
            speed.to_string(),
            "1 tokens · prompt 7 tokens, first after 0.50 s"
        );
        speed.usage = None;
        speed.cut();
        assert_eq!(
            speed.to_string(),
            "first after 0.50 s · cut short: the limit or the context is used up"
        );
    }
}
