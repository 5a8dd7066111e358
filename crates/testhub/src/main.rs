//! `testhub`: the hub stand-in as a process. Knows its command line and prints where it listens; the library does the
//! rest.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use testhub::faults::Faults;
use testhub::{Config, Hub};

/// A Hugging Face hub stand-in for tests: serves DIR/OWNER/REPO/... and injects faults.
#[derive(Debug, Parser)]
struct Args {
    /// Directory laid out as OWNER/REPO/files.
    #[arg(long)]
    root: PathBuf,
    /// Address of the API and of /admin.
    #[arg(long, default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// Address of the signed URLs.
    #[arg(long, default_value = "127.0.0.1:8089")]
    cdn_listen: SocketAddr,
    /// URL of --listen as clients see it.
    #[arg(long)]
    public_url: Option<String>,
    /// URL of --cdn-listen as clients see it.
    #[arg(long)]
    cdn_url: Option<String>,
    /// A token with access to everything; may be repeated.
    #[arg(long = "token")]
    tokens: Vec<String>,
    /// A valid token without access to gated and private repositories; may be repeated.
    #[arg(long = "outsider-token")]
    outsiders: Vec<String>,
    /// OWNER/REPO whose files need a token with access; may be repeated.
    #[arg(long)]
    gated: Vec<String>,
    /// OWNER/REPO that is hidden without a token with access; may be repeated.
    #[arg(long)]
    private: Vec<String>,
    /// OLD=NEW: OWNER/REPO names of which the old one redirects; may be repeated.
    #[arg(long, value_parser = renaming)]
    renamed: Vec<(String, String)>,
    /// Seconds for which a signed URL works.
    #[arg(long, default_value_t = 3600)]
    url_ttl: u64,
    /// Tree entries per page.
    #[arg(long, default_value_t = 1000)]
    page_size: usize,
    /// Faults from the start, in the JSON of PUT /admin/faults.
    #[arg(long)]
    faults: Option<String>,
}

fn renaming(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("give OLD=NEW")?;
    Ok((old.to_owned(), new.to_owned()))
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let args = Args::parse();
    let faults = match &args.faults {
        Some(text) => serde_json::from_str(text).with_context(|| format!("--faults {text}"))?,
        None => Faults::default(),
    };
    let hub = Hub::start(Config {
        root: args.root,
        listen: args.listen,
        cdn_listen: args.cdn_listen,
        public_url: args.public_url,
        cdn_url: args.cdn_url,
        tokens: args.tokens,
        outsiders: args.outsiders,
        gated: args.gated,
        private: args.private,
        renamed: args.renamed,
        url_ttl: Duration::from_secs(args.url_ttl),
        page_size: args.page_size,
        faults,
    })
    .await?;
    println!("{} {}", hub.url(), hub.cdn_url());
    tokio::signal::ctrl_c()
        .await
        .context("waiting for the end")?;
    Ok(())
}
