//! `kimi chat`: a conversation in the terminal, with a model file or with a server. It must not know how
//! answers come about; [`crate::chat::backend`] does.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use engine::{ChatMessage, Options, Turn};
use tokio::runtime::Runtime;

use crate::{
    chat::{
        backend::{Backend, Wishes},
        command::{self, Command},
        input::{Input, Line},
        local::Local,
        remote::Remote,
        screen::Screen,
        session::Session,
    },
    template_args::TemplateArgs,
};

/// The shell's code for a process ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Arguments of `kimi chat`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("who").required(true).args(["model", "url"])))]
pub(crate) struct ChatArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Server with the OpenAI API: http://localhost:8080.
    #[arg(short, long, value_name = "URL")]
    url: Option<String>,
    /// Model to ask the server for [default: its first one].
    #[arg(long, value_name = "NAME", requires = "url")]
    name: Option<String>,
    /// Key for the server.
    #[arg(long, env = "KIMI_API_KEY", hide_env_values = true, requires = "url")]
    api_key: Option<String>,
    /// Ask this and end; without it, lines are read from the terminal or a pipe.
    prompt: Option<String>,
    /// What the model is told first.
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Conversation to go on with, as /save writes it.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// 0 always takes the likeliest token [default: the model's advice].
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// The same seed and conversation give the same answer.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Longest answer in tokens.
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Tokens of context [default: the model's own, at most 32768].
    #[arg(short, long, value_name = "TOKENS", conflicts_with = "url")]
    ctx_size: Option<u32>,
    /// Worker threads [default: all cores].
    #[arg(short, long, value_name = "N", conflicts_with = "url")]
    threads: Option<usize>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Print nothing but answers: no thoughts, no speeds.
    #[arg(short, long)]
    quiet: bool,
}

/// Talks until the input ends.
pub(crate) fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = talk(args, &runtime);
    // A read from a pipe may be under way for ever.
    runtime.shutdown_background();
    result
}

fn talk(args: ChatArgs, runtime: &Runtime) -> anyhow::Result<ExitCode> {
    let mut session = match &args.load {
        Some(path) => Session::load(path)?,
        None => Session::default(),
    };
    if let Some(system) = &args.system {
        session.set_system(system);
    }
    let backend = match (args.model, args.url) {
        (Some(model), _) => Backend::Local(Local::start(Options {
            context: args.ctx_size,
            threads: args.threads,
            template: args.template.into(),
            ..Options::new(model)
        })?),
        (None, Some(url)) => {
            let remote = Remote::connect(&url, args.name, args.api_key);
            Backend::Remote(runtime.block_on(remote)?)
        }
        // clap asks for one of them.
        (None, None) => anyhow::bail!("give --model or --url"),
    };
    let mut chat = Chat {
        runtime,
        backend,
        session,
        wishes: Wishes {
            temperature: args.temperature,
            seed: args.seed,
            max_tokens: args.max_tokens,
            thinking: None,
        },
        screen: Screen::new(args.quiet),
    };
    if let Some(prompt) = args.prompt {
        chat.session.messages.push(ChatMessage::new("user", prompt));
        return chat.answer();
    }
    chat.read(Input::new()?)
}

struct Chat<'r> {
    runtime: &'r Runtime,
    backend: Backend,
    session: Session,
    wishes: Wishes,
    screen: Screen,
}

impl Chat<'_> {
    fn read(&mut self, mut input: Input) -> anyhow::Result<ExitCode> {
        if input.is_interactive() {
            let name = self.backend.name();
            self.screen.note(&format!("{name} · /help lists commands"));
        }
        loop {
            let text = match input.next(self.runtime)? {
                Line::Text(text) if text.trim().is_empty() => continue,
                Line::Text(text) => text,
                Line::Interrupted if input.is_interactive() => {
                    self.screen.note("Ctrl-D or /exit leaves");
                    continue;
                }
                Line::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
                Line::End => return Ok(ExitCode::SUCCESS),
            };
            let outcome = match command::parse(&text) {
                Ok(Command::Exit) => return Ok(ExitCode::SUCCESS),
                Ok(command) => self.obey(command),
                Err(error) => Err(error.into()),
            };
            match outcome {
                // A script should not go on after a failure.
                Err(error) if !input.is_interactive() => return Err(error),
                Err(error) => self.screen.error(&format!("{error:#}")),
                Ok(()) => {}
            }
        }
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        let session = &mut self.session;
        match command {
            Command::Say(text) => {
                session.messages.push(ChatMessage::new("user", text));
                self.answer()?;
            }
            Command::Regenerate => {
                session.drop_answer()?;
                self.answer()?;
            }
            Command::Help => self.screen.note(command::HELP),
            Command::System(None) => match session.system() {
                Some(system) => self.screen.note(system),
                None => self
                    .screen
                    .note("no system message; the template's own is used"),
            },
            Command::System(Some(text)) => session.set_system(&text),
            Command::Reset => session.reset(),
            Command::Think(thinking) => self.wishes.thinking = Some(thinking),
            Command::Save(path) => {
                session.save(&path)?;
                self.screen.note(&format!("saved to {}", path.display()));
            }
            Command::Load(path) => self.session = Session::load(&path)?,
            Command::Exit => {}
        }
        Ok(())
    }

    /// Lets the model answer the conversation, and keeps what it says. Ctrl-C ends the answer.
    fn answer(&mut self) -> anyhow::Result<ExitCode> {
        let mut turn = Turn::default();
        let screen = &mut self.screen;
        let mut show = |part: engine::Part| {
            screen.part(&part);
            turn.extend([part]);
        };
        let answer = self
            .backend
            .answer(&self.session.messages, &self.wishes, &mut show);
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                outcome = answer => Some(outcome),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        self.screen.end_of_answer();
        let is_empty = turn == Turn::default();
        if !is_empty {
            self.session.messages.push(turn.into_message());
        }
        match outcome {
            None => {
                self.screen.note("stopped");
                Ok(ExitCode::from(INTERRUPTED))
            }
            Some(Ok(speed)) => {
                if is_empty {
                    self.screen
                        .note("the model answered nothing; /regen asks again");
                }
                self.screen.note(&speed.to_string());
                Ok(ExitCode::SUCCESS)
            }
            Some(Err(error)) => Err(error.context("no answer")),
        }
    }
}
