//! One full life of a KimiModel: apply, edit the quant, revert it, delete, create again, with the operator behind a
//! wire that fails where the plan says. After each phase the state must be the one of a life without faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kimi_operator::controller;
use kimi_operator::crd::KimiModel;
use kimi_operator::telemetry::Telemetry;
use kube::api::{Api, DeleteParams, ListParams};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::kubelet::{self, Kubelet};
use crate::lab::{self, NAME, apply, model};
use crate::plan::{Blow, Plan};
use crate::state;
use crate::wire::{Stale, Wire, Write};

/// The phases of a life, in order, with the quant that serves at the end of each.
pub(crate) const PHASES: [(&str, Option<&str>); 5] = [
    ("apply", Some("Q4_K_M")),
    ("edit", Some("Q8_0")),
    ("revert", Some("Q4_K_M")),
    ("delete", None),
    ("create again", Some("Q4_K_M")),
];
/// How often pods move, at most.
const TICK: Duration = Duration::from_millis(200);
/// The operator says nothing for this long before pods move: so every run has the same writes.
const QUIET: Duration = Duration::from_millis(150);
/// For one phase, on a machine that is busy with other lives.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long a killed operator stays away.
const DOWN: Duration = Duration::from_millis(300);
/// How long the watches of a kind may stay silent.
const FROZEN: Duration = Duration::from_secs(3);

/// The API server that lives are led against, and the account that they are led under.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) client: Client,
    config: Config,
}

/// What a life came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) writes: Vec<Write>,
    pub(crate) states: BTreeMap<&'static str, Value>,
    /// The fault of the plan happened.
    pub(crate) fired: bool,
}

impl Lab {
    /// `None` where there is no control plane to use.
    pub(crate) async fn start() -> Option<Self> {
        let client = lab::connect(lab::Kind::ControlPlane).await?;
        let namespace = format!("kimi-proof-{}", std::process::id());
        let config = lab::operator_account(&client, &namespace).await;
        kubelet::join(&client).await;
        collects_garbage(&client, &namespace).await;
        Some(Self { client, config })
    }

    /// Leads the life in a namespace of its own.
    ///
    /// # Errors
    /// What differs from `wanted`, or what never came.
    pub(crate) async fn lead(
        &self,
        namespace: &str,
        plan: &Plan,
        wanted: Option<&Outcome>,
    ) -> Result<Outcome, String> {
        let namespace_object = json!({"metadata": {"name": namespace}});
        lab::apply_cluster::<k8s_openapi::api::core::v1::Namespace>(&self.client, namespace_object)
            .await;
        let mut life = Life {
            lab: self,
            namespace,
            plan,
            kubelet: Kubelet::new(&self.client, Some(namespace)),
            wire: Wire::default(),
            operator: None,
            wanted,
            outcome: Outcome::default(),
            versions: Vec::new(),
        };
        life.lead().await
    }
}

/// Waits until the garbage collector knows KimiModels, which it learns of late: otherwise the first deletion would
/// wait for it.
async fn collects_garbage(client: &Client, namespace: &str) {
    let models: Api<KimiModel> = Api::namespaced(client.clone(), namespace);
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(client.clone(), namespace);
    let owner = apply::<KimiModel>(client, namespace, model(json!({}))).await;
    let uid = owner.metadata.uid.unwrap();
    let reference = json!({"apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "name": NAME, "uid": uid});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "garbage", "ownerReferences": [reference]}});
    apply::<k8s_openapi::api::core::v1::ConfigMap>(client, namespace, map).await;
    models.delete(NAME, &DeleteParams::default()).await.unwrap();
    let start = Instant::now();
    while maps.get_opt("garbage").await.unwrap().is_some() {
        assert!(start.elapsed() < lab::PATIENCE, "no garbage collector");
        tokio::time::sleep(TICK).await;
    }
}

/// The operator in a runtime of its own, so that its death takes every task with it.
struct Operator(Option<Runtime>);

impl Operator {
    fn start(config: &Config, namespace: &str, wire: &Wire) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (config, namespace, wire) = (config.clone(), namespace.to_owned(), wire.clone());
        runtime.spawn(async move {
            let builder = ClientBuilder::try_from(config).unwrap();
            let client = builder.with_layer(&wire).build();
            let telemetry = Arc::new(Telemetry::new());
            controller::run(client, Some(namespace), lab::settings(), telemetry, None)
                .await
                .unwrap();
        });
        Self(Some(runtime))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Life<'a> {
    lab: &'a Lab,
    namespace: &'a str,
    plan: &'a Plan,
    kubelet: Kubelet,
    wire: Wire,
    operator: Option<Operator>,
    wanted: Option<&'a Outcome>,
    outcome: Outcome,
    /// The API server's resource version at the start of each phase so far.
    versions: Vec<String>,
}

impl Life<'_> {
    async fn lead(&mut self) -> Result<Outcome, String> {
        if let Blow::Write { write, fault } = &self.plan.blow {
            self.wire.arm(write.clone(), *fault);
        }
        self.start(None);
        for (phase, quant) in PHASES {
            self.wire.enter(phase);
            self.versions.push(self.version().await);
            if let Blow::Unseen { phase: here, kind } = self.plan.blow
                && here == phase
            {
                self.wire.freeze(kind);
            }
            self.change(phase, quant).await;
            self.settle(phase, quant)
                .await
                .map_err(|error| format!("{phase}: {error}"))?;
        }
        self.outcome.writes = self.wire.writes();
        self.outcome.fired |= self.wire.fired();
        Ok(std::mem::take(&mut self.outcome))
    }

    fn start(&mut self, stale: Option<Stale>) {
        self.wire.revive(stale);
        self.operator = Some(Operator::start(
            &self.lab.config,
            self.namespace,
            &self.wire,
        ));
    }

    /// What a user does at the start of a phase.
    async fn change(&self, phase: &str, quant: Option<&str>) {
        match quant {
            Some(quant) => {
                let object = model(json!({"quant": quant}));
                apply::<KimiModel>(&self.lab.client, self.namespace, object).await;
            }
            None => {
                assert_eq!(phase, "delete");
                let models: Api<KimiModel> =
                    Api::namespaced(self.lab.client.clone(), self.namespace);
                models.delete(NAME, &DeleteParams::default()).await.unwrap();
            }
        }
    }

    /// Lets operator and node work until the phase has come to its end.
    async fn settle(&mut self, phase: &'static str, quant: Option<&str>) -> Result<(), String> {
        let start = Instant::now();
        let never_dark = ["edit", "revert"].contains(&phase);
        loop {
            tokio::time::sleep(TICK).await;
            if start.elapsed() >= FROZEN {
                self.wire.thaw();
            }
            self.strike(phase).await;
            if self.wire.dead() {
                self.operator = None;
                tokio::time::sleep(DOWN).await;
                self.start(self.stale());
            }
            if !self.wire.quiet_for(QUIET) {
                continue;
            }
            let moved = self.kubelet.step().await.map_err(|e| e.to_string())?;
            if never_dark {
                let ready = state::ready_endpoints(&self.lab.client, self.namespace).await;
                if ready.map_err(|e| e.to_string())? == 0 {
                    return Err("no endpoint was ready".to_owned());
                }
            }
            let late = start.elapsed() > PATIENCE;
            if moved > 0 && !late {
                continue;
            }
            let now = state::of(&self.lab.client, self.namespace)
                .await
                .map_err(|e| e.to_string())?;
            let settled = is_settled(&now, quant) && self.wire.quiet_for(QUIET);
            match self.wanted.map(|wanted| &wanted.states[phase]) {
                Some(wanted) if settled && *wanted == now => {}
                None if settled && start.elapsed() > FROZEN => {}
                Some(wanted) if late => return Err(state::differences(wanted, &now)),
                None if late => return Err(format!("not settled: {now}")),
                _ => continue,
            }
            self.outcome.states.insert(phase, now);
            return Ok(());
        }
    }

    /// Blows that are not aimed at a write: they come once the phase has begun to change something.
    async fn strike(&mut self, phase: &str) {
        match &self.plan.blow {
            Blow::Stale { phase: here, .. } if *here == phase && !self.outcome.fired => {
                self.outcome.fired = true;
                self.wire.kill();
            }
            Blow::Unseen { phase: here, .. } if *here == phase => self.outcome.fired = true,
            _ => {}
        }
    }

    /// The view of a restarted operator that is one whole phase old.
    fn stale(&self) -> Option<Stale> {
        let Blow::Stale { kind, .. } = self.plan.blow else {
            return None;
        };
        let before = self.versions.len().saturating_sub(2);
        let version = self.versions.get(before)?.clone();
        Some(Stale { version, kind })
    }

    async fn version(&self) -> String {
        let models: Api<KimiModel> = Api::namespaced(self.lab.client.clone(), self.namespace);
        let list = models.list(&ListParams::default()).await.unwrap();
        list.metadata.resource_version.unwrap_or_default()
    }
}

/// The model says that it is where the spec wants it; or nothing is left of it.
fn is_settled(state: &Value, quant: Option<&str>) -> bool {
    let Some(quant) = quant else {
        return state::is_empty(state);
    };
    let model = &state["KimiModel"][0];
    let holds = |kind: &str, status: &str| {
        let words = model["conditions"].as_array().into_iter().flatten();
        words
            .into_iter()
            .any(|word| word[0] == kind && word[1] == status)
    };
    model["isObserved"] == true
        && model["status"]["activeQuant"] == quant
        && holds("Ready", "True")
        && !holds("Reconciling", "True")
}
