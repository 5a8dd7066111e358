//! The flags that choose a chat template, for every command that talks to a model. It must not know
//! how templates are rendered.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use engine::{Template, TemplateChoice};

/// Which chat template; the model's own unless given.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct TemplateArgs {
    /// Word conversations as this revision of Kimi does, whatever the model's file says.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::names()))]
    chat_template: Option<String>,
    /// Word conversations by this Jinja template.
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,
}

impl From<TemplateArgs> for TemplateChoice {
    fn from(args: TemplateArgs) -> Self {
        match (args.chat_template, args.chat_template_file) {
            (Some(name), _) => Self::Named(name),
            (None, Some(file)) => Self::File(file),
            (None, None) => Self::Model,
        }
    }
}
