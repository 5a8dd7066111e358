//! From a path to a model ready to compute: shards, headers, mapping, tokenizer, template. It must
//! not know requests.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use gguf::{Header, shard};
use sizing::{facts::Class, inspect};

use crate::{
    Compat, Error, Files, Info, Options, Progress, Template, Tokenizer, config::Config, file_type,
    memory, model::Model, tokenizer::metadata::chat_template, weights::Weights,
};

/// Threads a pool is ever given.
const MAX_THREADS: usize = 1024;

/// Slots an engine is ever given.
const MAX_SLOTS: usize = 1024;

/// A model and what belongs to it.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Arc<Template>,
    pub(crate) info: Arc<Info>,
}

/// Loads what `options` names; takes as long as reading the files does.
///
/// # Errors
/// Whatever is wrong with the options or the files; see [`Error`].
pub(crate) fn load(options: &Options, progress: &Arc<Progress>) -> Result<Loaded, Error> {
    if !(1..=MAX_SLOTS).contains(&options.slots) {
        return Err(Error::Options(format!(
            "{} slots were asked for; use 1 to {MAX_SLOTS}",
            options.slots
        )));
    }
    let threads = threads(options.threads)?;
    let (files, headers) = open(options, progress)?;
    // check_set refuses an empty set.
    let metadata = headers
        .first()
        .map(|header| &header.metadata)
        .ok_or_else(|| Error::ModelNotFound {
            path: options.model.clone(),
            detail: "no files".to_owned(),
        })?;

    let mut config = Config::read(metadata)?;
    if options.compat == Some(Compat::LlamaCpp) {
        config.rope.as_llama_cpp_has_it();
    }
    let context = context(options.context, config.context)?;
    let tokenizer = Tokenizer::from_metadata(metadata)?;
    let template = Template::choose(
        &options.template,
        chat_template(metadata)?,
        metadata.opt_str("general.name")?.unwrap_or_default(),
        &tokenizer,
    )?;
    progress.touch();

    let weights = Weights::map(&files, &headers, options.activations)?;
    let mut model = Model::new(
        config,
        &weights,
        tokenizer.vocab(),
        threads,
        Arc::clone(progress),
    )?;
    let name = name(metadata.opt_str("general.name")?, files.paths().next());
    let info = Info {
        name,
        architecture: metadata.get_str("general.architecture")?.to_owned(),
        quant: file_type::name(metadata.opt_u32("general.file_type")?)
            .or_else(|| weights.main_dtype().map(gguf::Dtype::name))
            .unwrap_or("unknown")
            .to_owned(),
        chat_template: chat_template(metadata)?.map(str::to_owned),
        context,
        trained_context: model.trained_context(),
        vocab: u32::try_from(tokenizer.vocab()).unwrap_or(u32::MAX),
        parameters: weights.parameters(),
        bytes: weights.bytes(),
        kv_bytes: model
            .cache_bytes(context, options.cache_type)
            .saturating_mul(options.slots as u64),
        cache_type: options.cache_type,
        slots: options.slots,
        threads,
        files,
    };
    tracing::info!(
        name = info.name,
        quant = info.quant,
        parameters = info.parameters,
        weight_bytes = info.bytes,
        kv_cache_bytes = info.kv_bytes,
        kv_cache_type = %info.cache_type,
        context = info.context,
        slots = info.slots,
        threads = info.threads,
        "model mapped"
    );
    read_ahead(&weights, &info, &mut model, progress)?;
    Ok(Loaded {
        model: Arc::new(model),
        tokenizer: Arc::new(tokenizer),
        template: Arc::new(template),
        info: Arc::new(info),
    })
}

/// The shards of what `options` names and their headers, which fit together.
pub(crate) fn open(options: &Options, progress: &Progress) -> Result<(Files, Vec<Header>), Error> {
    let paths = find(&options.model)?;
    // Before the first byte is read: what changes from here on is seen.
    let files = Files::note(&paths).map_err(|(path, source)| Error::Map { path, source })?;
    let mut headers = Vec::with_capacity(paths.len());
    for path in &paths {
        headers.push(gguf::open_header(path)?);
        progress.touch();
    }
    shard::check_set(&headers)?;
    Ok((files, headers))
}

fn find(model: &Path) -> Result<Vec<PathBuf>, Error> {
    if !model.exists() {
        return Err(Error::ModelNotFound {
            path: model.to_owned(),
            detail: "there is no such file or directory; check the path or fetch the model".into(),
        });
    }
    Ok(shard::find_shards(model)?)
}

fn threads(asked: Option<usize>) -> Result<usize, Error> {
    match asked {
        None => Ok(thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX_THREADS)),
        Some(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        Some(threads) => Err(Error::Options(format!(
            "{threads} threads were asked for; use 1 to {MAX_THREADS}"
        ))),
    }
}

fn context(asked: Option<u32>, trained: u32) -> Result<u32, Error> {
    match asked {
        None => Ok(trained.min(Options::DEFAULT_CONTEXT)),
        Some(0) => Err(Error::Options(
            "a context of 0 tokens was asked for".to_owned(),
        )),
        Some(asked) if asked > trained => Err(Error::ContextTooLong {
            asked,
            most: trained,
        }),
        Some(asked) => Ok(asked),
    }
}

fn name(given: Option<&str>, first: Option<&Path>) -> String {
    let stem = || {
        first
            .and_then(Path::file_stem)
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    given
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .or_else(stem)
        .unwrap_or_default()
}

/// Brings the files into memory when they fit beside the cache; else experts come when a token needs them.
fn read_ahead(
    weights: &Weights,
    info: &Info,
    model: &mut Model,
    progress: &Progress,
) -> Result<(), Error> {
    let limit = memory::limit().unwrap_or(u64::MAX);
    if fits(info, limit)? {
        weights.read_ahead(progress);
    } else {
        tracing::warn!(
            weight_bytes = info.bytes,
            kv_cache_bytes = info.kv_bytes,
            memory_bytes = limit,
            "the model does not fit in memory; weights will be read from disk again and again"
        );
        weights.read_on_demand(|name| inspect::class_of(name) != Class::Expert);
        model.read_experts_on_demand();
    }
    Ok(())
}

/// Whether weights and cache fit in `limit` bytes together; weights alone may be larger.
fn fits(info: &Info, limit: u64) -> Result<bool, Error> {
    if info.kv_bytes > limit {
        let (slots, context, needed) = (info.slots, info.context, info.kv_bytes);
        return Err(Error::CacheTooLarge {
            slots,
            context,
            needed,
            limit,
        });
    }
    Ok(info.bytes.saturating_add(info.kv_bytes) <= limit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn weights_may_exceed_memory_but_the_cache_may_not() {
        let info = Info {
            bytes: 60,
            kv_bytes: 40,
            slots: 4,
            context: 10,
            ..Info::default()
        };
        assert!(fits(&info, 100).unwrap());
        assert!(!fits(&info, 99).unwrap());
        let error = fits(&info, 39).unwrap_err();
        assert_eq!(error.reason(), "ContextTooLong");
        assert!(
            error
                .to_string()
                .contains("4 slots of 10 tokens need 40 bytes"),
            "{error}"
        );
    }

    #[test]
    fn context_is_the_model_s_or_the_default_or_what_was_asked() {
        assert_eq!(context(None, 8192).unwrap(), 8192);
        assert_eq!(context(None, 131_072).unwrap(), Options::DEFAULT_CONTEXT);
        assert_eq!(context(Some(131_072), 131_072).unwrap(), 131_072);
        assert!(context(Some(8193), 8192).is_err());
    }

    #[test]
    fn a_model_without_a_name_has_its_file_s() {
        let path = Path::new("/models/Kimi.gguf");
        assert_eq!(name(Some("Kimi K2"), Some(path)), "Kimi K2");
        assert_eq!(name(Some(""), Some(path)), "Kimi");
        assert_eq!(name(None, Some(path)), "Kimi");
    }
}
