//! What a snapshot means: the valid model, the facts known about its artifact, the plan, and the target that follows.
//! The planner and the builders read this and never the spec. It must know no client and decide no step.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sizing::plan::DEFAULT_BANDWIDTH_BITS;
use sizing::{Facts, Input, Plan, Quant};

use super::build::{self, Settings};
use super::validate::{Execution, Refusal, ValidModel, validate};
use crate::names;
use crate::snapshot::{Claim, Snapshot};

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
    /// With the workload label.
    pub template: PodTemplateSpec,
    /// Bytes of RAM that the server pod requests. Free of Nodes, so that a new Node rolls nothing.
    pub memory_request: u64,
    /// Hash of what the fetch Job is made from.
    pub fetch_inputs: String,
}

/// Thinks one snapshot through.
///
/// # Errors
/// Only when an object cannot be written as JSON, which is a bug.
pub fn assess(settings: &Settings, snapshot: &Snapshot) -> Result<Assessment, build::Error> {
    let model = match validate(snapshot) {
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
        (Some(facts), Some(plan)) => Some(target(settings, &model, facts, plan)?),
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
    facts: Facts,
    plan: &Plan,
) -> Result<Target, build::Error> {
    let artifact = names::artifact_id(&facts);
    let memory_request = match model.memory {
        Some(budget) => budget.min(plan.ram_bytes).max(plan.ram_min_bytes),
        None => plan.ram_min_bytes,
    };
    let fetch_inputs = build::fetch_job::inputs(model, &artifact, &facts)?;
    let bare =
        build::deployment::template(settings, model, &artifact, plan.context, memory_request);
    let (workload, template) = build::deployment::identify(bare, &artifact)?;
    Ok(Target {
        artifact,
        facts,
        workload,
        template,
        memory_request,
        fetch_inputs,
    })
}
