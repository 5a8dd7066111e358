//! From a `KimiModel` spec to a plan: names looked up in the tables, `quant: auto` chosen, quantities parsed. Shared by
//! `kimi plan` and `kimi run`. It must not know files, output formats or the network.

use sizing::{
    Ask, CacheType, Facts, Hardware, Input, Model, NotInGuide, Objective, Plan, Quant, Source,
};
use spec::{AUTO_QUANT, CpuFallback, KimiModelSpec};

/// A spec whose names were looked up.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The catalogue's row, from `spec.model` or from the repository's name. Its `repo` may differ from that below.
    pub(crate) model: Option<&'static Model>,
    pub(crate) repo: String,
    /// Never `auto`.
    pub(crate) quant: String,
    /// Why `quant: auto` became this quant.
    pub(crate) auto_reason: Option<String>,
    pub(crate) hardware: &'static Hardware,
    memory: Option<u64>,
    headroom: Option<u64>,
    context: Option<u64>,
    cpu_fallback: bool,
    /// Not the spec's: what the command line says.
    pub(crate) cache_type: CacheType,
}

/// A spec that cannot be planned, with what to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("the catalogue has no model '{name}'; it has: {known}")]
    UnknownModel { name: String, known: String },
    #[error("there is no hardware '{name}'; there is: {known}")]
    UnknownHardware { name: String, known: String },
    #[error("give model (a name from the catalogue) or source.huggingFace.repo")]
    NoRepo,
    #[error("give quant")]
    NoQuant,
    #[error(
        "the quant stands in ConfigMap {name} under {key}, which only a cluster can read: write it in quant"
    )]
    QuantElsewhere { name: String, key: String },
    #[error("quant: auto needs a model of the catalogue; {repo} is not in it: name the quant")]
    AutoOutsideCatalogue { repo: String },
    #[error(transparent)]
    NotInGuide(#[from] NotInGuide),
    #[error("{field} '{text}' is no quantity; write it like 96Gi or 100G")]
    Quantity { field: &'static str, text: String },
    #[error(
        "the catalogue knows the sizes of Kimi K2's six quants ({known}) in the repositories it names, not those of \
         {quant} of {repo}; --gguf FILE (a local file, or the first shard of a set) or --facts REPORT (written by \
         `kimi inspect-remote`) makes an exact plan"
    )]
    NoSizes {
        quant: String,
        repo: String,
        known: String,
    },
    #[error("the facts are of {found}, the file asks for {wanted}; inspect that one")]
    OtherFacts { found: String, wanted: String },
}

/// Looks every name of `spec` up and chooses the quant if it is `auto`.
pub(crate) fn resolve(spec: &KimiModelSpec) -> Result<Resolved, PlanError> {
    let given_repo = spec
        .source
        .as_ref()
        .and_then(|source| source.hugging_face.as_ref())
        .map(|hub| hub.repo.clone());
    let model = match (&spec.model, &given_repo) {
        (Some(name), _) => Some(Model::by_name(name).ok_or_else(|| unknown_model(name))?),
        (None, Some(repo)) => Model::by_repo(repo),
        (None, None) => return Err(PlanError::NoRepo),
    };
    let repo = given_repo
        .or(model.map(|model| model.repo.to_owned()))
        .ok_or(PlanError::NoRepo)?;
    let hardware_name = spec.hardware.as_str();
    let hardware = Hardware::by_name(hardware_name).ok_or_else(|| PlanError::UnknownHardware {
        name: hardware_name.to_owned(),
        known: names(Hardware::all().iter().map(|row| row.name)),
    })?;
    let quant = quant(spec)?;
    let mut resolved = Resolved {
        model,
        repo,
        quant,
        auto_reason: None,
        hardware,
        memory: quantity("memory", spec.memory.as_deref())?,
        headroom: quantity("storage.headroom", spec.storage.headroom.as_deref())?,
        context: spec.serving.context_length.map(u64::from),
        cpu_fallback: spec.serving.cpu_fallback == CpuFallback::Allow,
        cache_type: CacheType::default(),
    };
    if resolved.quant == AUTO_QUANT {
        let model = model.ok_or_else(|| PlanError::AutoOutsideCatalogue {
            repo: resolved.repo.clone(),
        })?;
        let choice = sizing::choose(&Ask {
            objective: objective(spec.objective),
            model,
            hardware,
            context: resolved.context,
            memory: resolved.memory,
            cpu_fallback: resolved.cpu_fallback,
        })?;
        resolved.quant = choice.quant.name.to_owned();
        resolved.auto_reason = Some(choice.reason);
    }
    Ok(resolved)
}

fn quant(spec: &KimiModelSpec) -> Result<String, PlanError> {
    match (&spec.quant, &spec.quant_from) {
        (Some(quant), _) => Ok(quant.clone()),
        (None, Some(from)) => Err(PlanError::QuantElsewhere {
            name: from.config_map_key_ref.name.clone(),
            key: from.config_map_key_ref.key.clone(),
        }),
        (None, None) => Err(PlanError::NoQuant),
    }
}

/// Plans from `facts` where given, else from the catalogue.
pub(crate) fn plan(
    resolved: &Resolved,
    facts: Option<&Facts>,
    bandwidth_bits: u64,
) -> Result<Plan, PlanError> {
    // The catalogue's sizes are of its own repository: another one may hold other files.
    let row = resolved.model.filter(|row| row.repo == resolved.repo);
    let source = match (facts, row, Quant::by_name(&resolved.quant)) {
        (Some(facts), ..) => Source::Exact(same_artifact(resolved, facts)?),
        (None, Some(model), Some(quant)) => Source::Catalogue { model, quant },
        _ => {
            return Err(PlanError::NoSizes {
                quant: resolved.quant.clone(),
                repo: resolved.repo.clone(),
                known: names(Quant::all().iter().map(|row| row.name)),
            });
        }
    };
    Ok(sizing::plan(&Input {
        context: resolved.context,
        memory: resolved.memory,
        headroom: resolved.headroom,
        bandwidth_bits,
        cpu_fallback: resolved.cpu_fallback,
        cache_type: resolved.cache_type,
        ..Input::new(source, resolved.hardware)
    }))
}

fn same_artifact<'a>(resolved: &Resolved, facts: &'a Facts) -> Result<&'a Facts, PlanError> {
    let same = facts.repo.eq_ignore_ascii_case(&resolved.repo)
        && facts.quant.eq_ignore_ascii_case(&resolved.quant);
    if same {
        return Ok(facts);
    }
    Err(PlanError::OtherFacts {
        found: format!("{} {}", facts.repo, facts.quant),
        wanted: format!("{} {}", resolved.repo, resolved.quant),
    })
}

fn unknown_model(name: &str) -> PlanError {
    PlanError::UnknownModel {
        name: name.to_owned(),
        known: names(Model::all().iter().map(|row| row.name)),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn quantity(field: &'static str, text: Option<&str>) -> Result<Option<u64>, PlanError> {
    text.map(|text| {
        spec::parse_quantity(text).ok_or_else(|| PlanError::Quantity {
            field,
            text: text.to_owned(),
        })
    })
    .transpose()
}

fn objective(objective: spec::Objective) -> Objective {
    match objective {
        spec::Objective::Production => Objective::Production,
        spec::Objective::Development => Objective::Development,
        spec::Objective::Edge => Objective::Edge,
        spec::Objective::Research => Objective::Research,
        spec::Objective::Cost => Objective::Cost,
        spec::Objective::Quality => Objective::Quality,
    }
}
