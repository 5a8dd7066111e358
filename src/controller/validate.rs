//! Raw spec → [`ValidModel`]: every word resolved and bounded once, so that no later step reads the spec. It must know
//! no client and make no plan; what is wrong with a spec is a value, not an error.

mod pod;

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use sizing::hardware::PRODUCT_LABEL;
use sizing::{Ask, Hardware, Model, Objective};
use spec::{
    AUTO_QUANT, AccessMode, ConfigMapKeyRef, CpuFallback, EngineUpdate, FilledVolume, HardwareName,
    HuggingFace, KimiModelSpec, QuantFrom, Rollout, SecretKeyRef, Serving, Storage, Strategy,
    WhenDeleted,
};

pub use self::pod::Additions;
use super::build::Settings;
use super::plan::Reason;
use crate::names;
use crate::snapshot::{Claim, ConfigValue, Node, Snapshot};

/// Label whose value a node affinity can list; it is not always the Node's name.
pub(super) const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// A spec whose every word means something.
#[derive(Clone, Debug)]
pub struct ValidModel {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub source: Source,
    /// For `quant: auto`.
    pub choice: Option<AutoChoice>,
    /// The catalogue's model, when the spec names one.
    pub catalogue: Option<&'static Model>,
    pub hardware_name: HardwareName,
    pub hardware: &'static Hardware,
    pub execution: Execution,
    /// `spec.memory` in bytes.
    pub memory: Option<u64>,
    /// Tokens.
    pub context: Option<u64>,
    pub storage_class: Option<String>,
    /// Bytes.
    pub headroom: Option<u64>,
    /// Volumes kept beside the served one; `None` keeps all.
    pub keep_quants: Option<usize>,
    pub when_deleted: WhenDeleted,
    pub access_mode: AccessMode,
    pub replicas: i32,
    pub port: u16,
    pub api_key: Option<SecretKeyRef>,
    /// `spec.rollout`'s limits, seconds.
    pub progress_deadline: Option<u32>,
    pub max_outage: Option<u32>,
    pub engine_update: EngineUpdate,
    pub strategy: Strategy,
    /// Who may call the API besides the namespace's own pods, where the spec restricts it.
    pub peers: Option<Vec<NetworkPolicyPeer>>,
    /// What the spec adds to pods.
    pub pod: Additions,
    pub suspend: bool,
    /// Hash of the value by which the user asked for a restart of the server.
    pub restart: Option<String>,
    /// Hash of the value by which the user asked for the weights to be verified anew.
    pub refetch: Option<String>,
    pub nodes: Nodes,
}

/// Where the bytes come from, resolved through the catalogue and `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// [`names::source_id`] of the rest.
    pub id: String,
    pub endpoint: Option<String>,
    pub repo: String,
    pub revision: String,
    pub path: Option<String>,
    /// The claim that already holds the weights; there is no hub then.
    pub volume: Option<String>,
    pub quant: String,
    pub token: Option<SecretKeyRef>,
}

/// What `quant: auto` came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoChoice {
    /// Hash of the question as the spec puts it, without the Nodes.
    pub question: String,
    /// The answer in words.
    pub reason: String,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// The CPU, as asked.
    Cpu,
    /// The CPU in the GPU's place, by `cpuFallback: Allow`, since the engine has no GPU path: on a Node with the GPU
    /// where there is one.
    CpuFallback,
    /// Nothing: a GPU was asked for and the CPU denied.
    Denied,
}

/// The Nodes that the hardware selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Largest memory first, then by name.
    pub matching: Vec<MatchingNode>,
    /// Some Node, ready or not, has the GPU and advertises it as a resource.
    pub gpu: bool,
    /// For GPU hardware: product labels seen on any Node.
    pub products_seen: BTreeSet<String>,
}

/// A Node that the hardware selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchingNode {
    pub name: String,
    pub hostname: String,
    /// Allocatable bytes.
    pub memory: u64,
}

/// A spec that cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// The field, what is wrong with it, and what would be right.
    pub message: String,
}

impl ValidModel {
    /// Name of the claim with this artifact.
    #[must_use]
    pub fn claim(&self, artifact: &str) -> String {
        let own = || names::claim(&self.name, artifact);
        self.source.volume.clone().unwrap_or_else(own)
    }

    /// RAM to plan with, in bytes: the spec's, or the largest allocatable of the matching Nodes, if there are any.
    #[must_use]
    pub fn memory_budget(&self) -> Option<u64> {
        self.memory
            .or_else(|| self.nodes.matching.first().map(|node| node.memory))
    }
}

/// Resolves the spec against the tables and the Nodes.
///
/// # Errors
/// A [`Refusal`] that names the field; the first in field order.
pub fn validate(settings: &Settings, snapshot: &Snapshot) -> Result<ValidModel, Refusal> {
    let Snapshot {
        model: meta,
        spec,
        quant_from: found,
        nodes,
        jobs: _,
        claims,
        workloads: _,
        service: _,
        guards: _,
        now: _,
    } = snapshot;
    spec::check_name(&meta.name)
        .and_then(|()| spec::check(spec))
        .map_err(|violation| invalid(violation.to_string()))?;
    // No `..`: a new field fails to compile here instead of silently doing nothing.
    let KimiModelSpec {
        model,
        quant,
        quant_from,
        hardware,
        objective,
        memory,
        source,
        storage,
        serving,
        rollout,
        pod: options,
        suspend,
    } = spec;
    let Storage {
        storage_class_name,
        headroom,
        keep_quants,
        when_deleted,
        access_mode,
    } = storage;
    let Serving {
        replicas,
        context_length,
        port,
        api_key_secret_ref,
        cpu_fallback,
        network_policy,
    } = serving;
    let Rollout {
        progress_deadline_seconds,
        max_outage_seconds,
        engine_update,
        strategy,
    } = rollout;

    let catalogue = model.as_deref().map(find_model).transpose()?;
    let hardware_row = find_hardware(*hardware)?;
    let execution = execution(*hardware, *cpu_fallback);
    let additions = pod::additions(options, &settings.forbidden_pod_fields)?;
    let admitted = nodes.iter().filter(|node| pod::admits(options, node));
    let nodes = select_nodes(hardware_row, execution, admitted);
    let memory = memory.as_deref().and_then(spec::parse_quantity);
    let context = context_length.map(u64::from);
    let quant = &named_quant(
        quant.as_deref(),
        quant_from.as_ref(),
        found.as_ref(),
        catalogue.is_some(),
    )?;
    let mut resolved = resolve_source(source.as_ref(), catalogue, quant)?;
    let mut choice = None;
    if quant == AUTO_QUANT {
        let ask = Ask {
            objective: objective_row(*objective),
            model: catalogue.ok_or_else(|| {
                invalid("spec.quant: auto chooses from the catalogue: give model".to_owned())
            })?,
            hardware: hardware_row,
            context,
            memory: memory.or_else(|| nodes.matching.first().map(|node| node.memory)),
            cpu_fallback: execution == Execution::CpuFallback,
        };
        choice = Some(choose(&ask, memory, claims, &mut resolved)?);
    }
    resolved.id = source_id(&resolved);

    Ok(ValidModel {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        source: resolved,
        choice,
        catalogue,
        hardware_name: *hardware,
        hardware: hardware_row,
        execution,
        memory,
        context,
        storage_class: storage_class_name.clone(),
        headroom: headroom.as_deref().and_then(spec::parse_quantity),
        keep_quants: keep_quants.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        when_deleted: *when_deleted,
        access_mode: *access_mode,
        replicas: *replicas,
        port: *port,
        api_key: api_key_secret_ref.clone(),
        progress_deadline: *progress_deadline_seconds,
        max_outage: *max_outage_seconds,
        engine_update: *engine_update,
        strategy: *strategy,
        peers: network_policy.as_ref().map(pod::peers).transpose()?,
        pod: additions,
        suspend: *suspend,
        restart: meta.restart.clone(),
        refetch: meta.refetch.clone(),
        nodes,
    })
}

fn invalid(message: String) -> Refusal {
    Refusal {
        reason: Reason::InvalidSpec,
        message,
    }
}

/// The quant that the spec names, or that stands where it points to.
fn named_quant(
    quant: Option<&str>,
    from: Option<&QuantFrom>,
    found: Option<&ConfigValue>,
    has_model: bool,
) -> Result<String, Refusal> {
    let Some(from) = from else {
        // The check above has refused a spec with neither.
        return Ok(quant.unwrap_or_default().to_owned());
    };
    let ConfigMapKeyRef { name, key } = &from.config_map_key_ref;
    let missing = match found {
        Some(ConfigValue::Text(text)) => {
            let text = text.trim();
            spec::check_quant("spec.quantFrom", text, has_model).map_err(|violation| {
                invalid(format!(
                    "{violation} (ConfigMap {name} has '{}' in {key})",
                    text.escape_debug().take(80).collect::<String>()
                ))
            })?;
            return Ok(text.to_owned());
        }
        Some(ConfigValue::NoKey { has }) if has.is_empty() => {
            format!("ConfigMap {name} is empty; add {key}")
        }
        Some(ConfigValue::NoKey { has }) => {
            format!(
                "ConfigMap {name} has no key {key}; it has {}",
                has.join(", ")
            )
        }
        Some(ConfigValue::NoConfigMap) | None => {
            format!("there is no ConfigMap {name}; create it with the key {key}")
        }
    };
    Err(Refusal {
        reason: Reason::QuantSourceMissing,
        message: format!("spec.quantFrom: {missing}. It is looked for again by itself"),
    })
}

fn find_hardware(name: HardwareName) -> Result<&'static Hardware, Refusal> {
    Hardware::by_name(name.as_str()).ok_or_else(|| {
        invalid(format!(
            "spec.hardware: {name} has no row in the hardware table"
        ))
    })
}

fn execution(hardware: HardwareName, fallback: CpuFallback) -> Execution {
    match (hardware.is_gpu(), fallback) {
        (false, _) => Execution::Cpu,
        (true, CpuFallback::Allow) => Execution::CpuFallback,
        (true, CpuFallback::Deny) => Execution::Denied,
    }
}

fn source_id(source: &Source) -> String {
    let Source {
        id: _,
        endpoint,
        repo,
        revision,
        path,
        volume: _,
        quant,
        token: _,
    } = source;
    names::source_id(endpoint.as_deref(), repo, revision, path.as_deref(), quant)
}

/// Answers `quant: auto` and puts the answer into the source.
fn choose(
    ask: &Ask,
    memory: Option<u64>,
    claims: &[Claim],
    source: &mut Source,
) -> Result<AutoChoice, Refusal> {
    let question = question(ask, memory, source);
    let (quant, reason) = answer(ask, &question, claims)?;
    source.quant = quant;
    Ok(AutoChoice { question, reason })
}

fn find_model(name: &str) -> Result<&'static Model, Refusal> {
    Model::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = Model::all().iter().map(|row| row.name).collect();
        Refusal {
            reason: Reason::UnknownModel,
            message: format!(
                "spec.model: the catalogue has no '{name}'; it has {}. For anything else leave model out and give \
                 source.huggingFace.repo",
                known.join(", ")
            ),
        }
    })
}

/// The source as written, or the catalogue's; its id is set once the quant is known.
fn resolve_source(
    given: Option<&spec::Source>,
    catalogue: Option<&'static Model>,
    quant: &str,
) -> Result<Source, Refusal> {
    let blank = |repo: &str, revision: &str| Source {
        id: String::new(),
        endpoint: None,
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: None,
        volume: None,
        quant: quant.to_owned(),
        token: None,
    };
    if let Some(FilledVolume { claim_name, path }) = given.and_then(|source| source.pvc.as_ref()) {
        return Ok(Source {
            path: path.clone(),
            volume: Some(claim_name.clone()),
            ..blank(&format!("volume/{claim_name}"), "")
        });
    }
    match (
        given.and_then(|source| source.hugging_face.as_ref()),
        catalogue,
    ) {
        (
            Some(HuggingFace {
                repo,
                revision,
                path,
                endpoint,
                token_secret_ref,
            }),
            _,
        ) => Ok(Source {
            endpoint: endpoint
                .as_deref()
                .map(|url| url.trim_end_matches('/').to_owned()),
            path: path.clone(),
            token: token_secret_ref.clone(),
            ..blank(repo, revision)
        }),
        (None, Some(model)) => Ok(blank(model.repo, spec::DEFAULT_REVISION)),
        (None, None) => Err(invalid(
            "spec.model: give model (a name from the catalogue) or source.huggingFace.repo"
                .to_owned(),
        )),
    }
}

/// The question as the spec puts it. Nodes stay out of it: a Node that comes or goes must not fetch another quant.
fn question(ask: &Ask, memory: Option<u64>, source: &Source) -> String {
    names::short_hash(&format!(
        "{}\n{}\n{}\n{:?}\n{memory:?}\n{}\n{:?}\n{}\n{}\n{:?}\n",
        ask.objective.name(),
        ask.model.name,
        ask.hardware.name,
        ask.context,
        ask.cpu_fallback,
        source.endpoint,
        source.repo,
        source.revision,
        source.path,
    ))
}

/// The quant that answered the same question before, or a fresh answer.
fn answer(ask: &Ask, question: &str, claims: &[Claim]) -> Result<(String, String), Refusal> {
    let kept = claims
        .iter()
        .filter(|claim| claim.choice.as_deref() == Some(question) && !claim.deleting)
        .max_by_key(|claim| claim.created)
        .and_then(|claim| claim.facts.as_ref());
    if let Some(facts) = kept {
        return Ok((
            facts.quant.clone(),
            format!("{}: chosen before for the same spec", facts.quant),
        ));
    }
    sizing::choose(ask)
        .map(|choice| (choice.quant.name.to_owned(), choice.reason))
        .map_err(|error| invalid(format!("spec.quant: {error}")))
}

fn objective_row(objective: spec::Objective) -> Objective {
    match objective {
        spec::Objective::Production => Objective::Production,
        spec::Objective::Development => Objective::Development,
        spec::Objective::Edge => Objective::Edge,
        spec::Objective::Research => Objective::Research,
        spec::Objective::Cost => Objective::Cost,
        spec::Objective::Quality => Objective::Quality,
    }
}

/// Nodes with the GPU, or any Node for the CPU; the CPU stands in for a GPU that no Node has only where it may.
fn select_nodes<'a>(
    hardware: &'static Hardware,
    execution: Execution,
    nodes: impl Iterator<Item = &'a Node> + Clone,
) -> Nodes {
    let product = |node: &Node| node.labels.get(PRODUCT_LABEL).cloned();
    let has_gpu = |node: &Node| {
        product(node).is_some_and(|product| hardware.node_labels.contains(&product.as_str()))
    };
    let usable = || nodes.clone().filter(|node| node.usable);
    let mut selected: Vec<&Node> = match execution {
        Execution::Cpu => usable().collect(),
        Execution::CpuFallback | Execution::Denied => {
            usable().filter(|node| has_gpu(node)).collect()
        }
    };
    if selected.is_empty() && execution == Execution::CpuFallback {
        selected = usable().collect();
    }
    let mut matching: Vec<MatchingNode> = selected
        .into_iter()
        .map(|node| MatchingNode {
            name: node.name.clone(),
            hostname: node
                .labels
                .get(HOSTNAME_LABEL)
                .unwrap_or(&node.name)
                .clone(),
            memory: node.memory,
        })
        .collect();
    matching.sort_by(|a, b| b.memory.cmp(&a.memory).then_with(|| a.name.cmp(&b.name)));
    Nodes {
        matching,
        // A Node that restarts is still one that has the GPU.
        gpu: execution != Execution::Cpu
            && nodes.clone().any(|node| has_gpu(node) && node.gpus > 0),
        products_seen: nodes.clone().filter_map(product).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_schema_has_its_row() {
        for hardware in HardwareName::ALL {
            let row = Hardware::by_name(hardware.as_str());
            assert!(
                row.is_some_and(|row| row.is_cpu() != hardware.is_gpu()),
                "{hardware}"
            );
        }
        assert_eq!(HardwareName::ALL.len(), Hardware::all().len());
        for objective in spec::Objective::ALL {
            assert_eq!(objective_row(objective).name(), objective.as_str());
        }
    }
}
