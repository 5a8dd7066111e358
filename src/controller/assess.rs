//! What a snapshot means: the valid model, the facts known about its artifact, the plan, and the target that follows.
//! The planner and the builders read this and never the spec. It must know no client and decide no step.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sizing::plan::DEFAULT_BANDWIDTH_BITS;
use sizing::{Facts, Input, Plan, Quant};
use spec::EngineUpdate;

use super::build::{self, Settings};
use super::validate::{Additions, Execution, Refusal, ValidModel, validate};
use crate::names;
use crate::snapshot::{Claim, Holder, Snapshot, Workload};

/// Loading is expected to be at least this fast, in bytes per second: a spinning disk, or a busy network volume.
const SLOWEST_LOAD: u64 = 50_000_000;
/// Image pull, scheduling and self-test, in seconds.
const START_ALLOWANCE: u64 = 1200;

/// One snapshot, thought through.
#[derive(Clone, Debug)]
pub struct Assessment {
    pub model: Result<ValidModel, Refusal>,
    /// From the files' own tables once known, from the catalogue before, absent when neither has the quant.
    pub plan: Option<Plan>,
    /// What should run, once the facts are known.
    pub target: Option<Target>,
    /// Hash of what the inspect Job is made from; empty for a refused spec.
    pub inspect_inputs: String,
}

/// The workload that the spec asks for.
#[derive(Clone, Debug)]
pub struct Target {
    /// [`names::artifact_id`] of the facts.
    pub artifact: String,
    pub facts: Facts,
    /// Id of the Deployment: artifact and pod template.
    pub workload: String,
    /// Hash of the spec's words in the template.
    pub inputs: String,
    /// With the workload label; `None` where a Deployment of another version of the operator is kept as it is.
    pub template: Option<PodTemplateSpec>,
    /// Bytes of RAM that the server pod requests. Free of Nodes, so that a new Node rolls nothing.
    pub memory_request: u64,
    /// Hash of what the fetch Job is made from.
    pub fetch_inputs: String,
    /// Seconds from a Node to a passed self-test, after which it is given up.
    pub deadline_seconds: u32,
}

/// Memory of the server's container, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Anonymous memory and the weights planned to be resident.
    pub request: u64,
    /// Above all that the server should ever hold: pages of the weights come and go below it, and what nobody foresaw ends
    /// this container instead of its Node.
    pub limit: u64,
}

impl Memory {
    /// Least room between what is planned and the limit.
    const SLACK: u64 = 1 << 30;

    /// With a budget, what fits into it is resident; without one all weights may become so, where the Node has the room.
    fn of(model: &ValidModel, plan: &Plan) -> Self {
        let (request, most) = match model.memory {
            Some(budget) => {
                let request = budget.min(plan.ram_bytes).max(plan.ram_min_bytes);
                (request, request)
            }
            None => (plan.ram_min_bytes, plan.ram_bytes.max(plan.ram_min_bytes)),
        };
        Self {
            request,
            limit: most.saturating_add((most / 8).max(Self::SLACK)),
        }
    }
}

/// Thinks one snapshot through.
///
/// # Errors
/// Only when an object cannot be written as JSON, which is a bug.
pub fn assess(settings: &Settings, snapshot: &Snapshot) -> Result<Assessment, build::Error> {
    let model = match validate(settings, snapshot) {
        Ok(model) => model,
        Err(refusal) => {
            return Ok(Assessment {
                model: Err(refusal),
                plan: None,
                target: None,
                inspect_inputs: String::new(),
            });
        }
    };
    let inspect_inputs = build::inspect_job::inputs(&model)?;
    let facts = known_facts(snapshot, &model.source.id);
    let plan = match &facts {
        Some(facts) => Some(sizing::plan(&input(&model, sizing::Source::Exact(facts)))),
        None => catalogue_plan(&model),
    };
    let target = match (facts, &plan) {
        (Some(facts), Some(plan)) => Some(target(settings, &model, snapshot, facts, plan)?),
        _ => None,
    };
    Ok(Assessment {
        model: Ok(model),
        plan,
        target,
        inspect_inputs,
    })
}

/// Facts of the source: written on a claim, else reported by the inspect Job. A claim comes first: it pins the commit
/// that a branch pointed to when the weights were fetched.
fn known_facts(snapshot: &Snapshot, source: &str) -> Option<Facts> {
    let active = snapshot.active().map(|workload| workload.artifact.as_str());
    let rank = |claim: &&Claim| {
        (
            Some(claim.artifact.as_str()) == active,
            claim.verified.is_some(),
            claim.created,
        )
    };
    let from_claim = snapshot
        .claims
        .iter()
        .filter(|claim| claim.source == source && !claim.deleting && claim.facts.is_some())
        // What somebody else was told of a given volume, or before a person took the word back, counts for nothing.
        .filter(|claim| !claim.given || claim.holder == Holder::Us && claim.verified.is_some())
        .max_by_key(rank)
        .and_then(|claim| claim.facts.clone());
    from_claim.or_else(|| {
        let job = snapshot.inspect_job(source)?;
        if job.deleting {
            None
        } else {
            job.facts.clone()
        }
    })
}

/// The plan from the tables, where model and quant are rows of them and the source is the catalogue's.
fn catalogue_plan(model: &ValidModel) -> Option<Plan> {
    let row = model
        .catalogue
        .filter(|row| row.repo == model.source.repo)?;
    let quant = Quant::by_name(&model.source.quant)?;
    Some(sizing::plan(&input(
        model,
        sizing::Source::Catalogue { model: row, quant },
    )))
}

fn input<'a>(model: &ValidModel, source: sizing::Source<'a>) -> Input<'a> {
    Input {
        source,
        hardware: model.hardware,
        context: model.context,
        memory: model.memory_budget(),
        headroom: model.headroom,
        bandwidth_bits: DEFAULT_BANDWIDTH_BITS,
        cpu_fallback: model.execution == Execution::CpuFallback,
        cache_type: sizing::CacheType::default(),
    }
}

fn target(
    settings: &Settings,
    model: &ValidModel,
    snapshot: &Snapshot,
    facts: Facts,
    plan: &Plan,
) -> Result<Target, build::Error> {
    let artifact = names::artifact_id(&facts);
    let facts_bytes = facts.bytes;
    let memory = Memory::of(model, plan);
    let fetch_inputs = build::fetch_job::inputs(model, &artifact, &facts)?;
    let inputs = build::deployment::inputs(&snapshot.spec, model.restart.as_deref())?;
    let render = |gpu| {
        let bare = build::deployment::template(settings, model, &facts, plan.context, memory, gpu);
        build::deployment::identify(bare, &artifact)
    };
    let (mut rendered, mut template) = render(model.nodes.gpu)?;
    // Nodes decide whether a server that starts requests a GPU. One that runs is not restarted for their sake.
    if model.execution != Execution::Cpu && running(model, snapshot, &rendered).is_none() {
        let (id, other) = render(!model.nodes.gpu)?;
        if running(model, snapshot, &id).is_some() {
            (rendered, template) = (id, other);
        }
    }
    let kept = match model.engine_update {
        EngineUpdate::Automatic => None,
        EngineUpdate::Manual => kept(model, snapshot, &artifact, &inputs, &rendered, &template),
    };
    let (workload, template) = match kept {
        Some(kept) => (kept.id.clone(), None),
        None => (rendered, Some(template)),
    };
    Ok(Target {
        artifact,
        facts,
        workload,
        inputs,
        template,
        memory_request: memory.request,
        fetch_inputs,
        deadline_seconds: model
            .progress_deadline
            .unwrap_or_else(|| default_deadline(facts_bytes)),
    })
}

/// The Deployment that runs just what the spec asks for, made by another version of the operator or with another
/// image: loading for minutes is not worth a version that nobody asked for. What is stopped is not kept, since starting
/// it costs a load anyway.
fn kept<'a>(
    model: &ValidModel,
    snapshot: &'a Snapshot,
    artifact: &str,
    inputs: &str,
    rendered: &str,
    template: &PodTemplateSpec,
) -> Option<&'a Workload> {
    let container = template
        .spec
        .as_ref()
        .and_then(|pod| pod.containers.first());
    let args = container.and_then(|container| container.args.as_deref());
    let shown = build::deployment::shown(args.unwrap_or_default());
    let same = |workload: &&Workload| {
        let words = match &workload.inputs {
            Some(made_from) => made_from == inputs,
            None => {
                let plain = model.restart.is_none() && model.pod == Additions::default();
                plain && workload.shown == shown
            }
        };
        words && workload.artifact == artifact && runs(model, workload)
    };
    let found = match snapshot.active().filter(same) {
        Some(active) => Some(active),
        None if snapshot.workload(rendered).is_some() => None,
        None => snapshot.workloads.iter().find(same),
    };
    found.filter(|workload| workload.id != rendered)
}

fn running<'a>(model: &ValidModel, snapshot: &'a Snapshot, id: &str) -> Option<&'a Workload> {
    snapshot
        .workload(id)
        .filter(|workload| runs(model, workload))
}

/// Whether a Deployment runs, or can: one that asks for a GPU which no Node has any more cannot start.
fn runs(model: &ValidModel, workload: &Workload) -> bool {
    let can = !workload.gpu || model.nodes.gpu || workload.ready_pods() > 0;
    can && workload.replicas > 0 && !workload.deleting
}

fn default_deadline(bytes: u64) -> u32 {
    u32::try_from(START_ALLOWANCE + bytes / SLOWEST_LOAD).unwrap_or(u32::MAX)
}
