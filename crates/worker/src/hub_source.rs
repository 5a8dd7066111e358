//! The arguments that name a source on a hub, as `kimi fetch` and `kimi inspect-remote` share them.

use std::path::PathBuf;

use crate::job::JobError;

/// Where the weights come from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HubSource {
    /// Repository, OWNER/NAME.
    #[arg(long)]
    pub(crate) repo: String,
    /// Branch, tag or commit id.
    #[arg(long, default_value = "main")]
    pub(crate) revision: String,
    /// Quant: a directory of the repository or a component of its file names.
    #[arg(long)]
    pub(crate) quant: String,
    /// Directory or start of file names, where the quant alone does not decide.
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// The hub or a mirror of it.
    #[arg(long, env = "HF_ENDPOINT", default_value = fetch::DEFAULT_ENDPOINT, value_name = "URL")]
    pub(crate) endpoint: String,
    /// File with an access token; without it, HF_TOKEN of the environment counts.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl HubSource {
    pub(crate) fn hub(&self) -> Result<fetch::Hub, JobError> {
        let token = match &self.token_file {
            Some(file) => Some(fetch::Token::read(file)?),
            None => std::env::var("HF_TOKEN")
                .ok()
                .as_deref()
                .and_then(fetch::Token::new),
        };
        Ok(fetch::Hub::new(&self.endpoint, token)?)
    }

    pub(crate) async fn find(&self, hub: &fetch::Hub) -> Result<fetch::Artifact, JobError> {
        let source = fetch::Source {
            repo: self.repo.clone(),
            revision: self.revision.clone(),
            path: self.path.clone(),
            quant: self.quant.clone(),
        };
        Ok(fetch::Artifact::find(hub, &source).await?)
    }
}
