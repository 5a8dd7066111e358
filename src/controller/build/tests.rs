//! Rendered objects against goldens: every object of a life, for the least and for the fullest spec. Update them with
//! `UPDATE_GOLDEN=1` and read the difference. Also the promises no golden shows: what a template must not depend on.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::{DeletedKind, Deletion, Prepared, Resources, Settings, build, guards};
use crate::controller::assess::{Assessment, Target, assess};
use crate::controller::plan::{Decision, Reason, Step};
use crate::crd::{HistoryEntry, Outcome};
use crate::names;
use crate::snapshot::{Claim, JobKind, JobPhase, JobState, ServiceState, Snapshot, Workload};
use crate::testing::{self, MINIMAL};

/// Every field that reaches an object, none at its default.
const FULL: &str = "
source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF, revision: v1.0, path: gguf/tiny, endpoint: 'http://hub.test:8088/',
  tokenSecretRef: {name: hub-token, key: hf}}}
quant: Q4_K_M
hardware: T4
memory: 2Gi
storage: {storageClassName: fast, headroom: 2G}
serving: {contextLength: 2048, port: 9000, cpuFallback: Allow, apiKeySecretRef: {name: clients, key: bearer}}
pod:
  nodeSelector: {kubernetes.io/hostname: large.host}
  tolerations: [{key: dedicated, operator: Equal, value: llm, effect: NoSchedule}]
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: nvidia.com/gpu.product, operator: Exists}]}]
      preferredDuringSchedulingIgnoredDuringExecution:
        [{weight: 7, preference: {matchExpressions: [{key: disk, operator: In, values: [nvme]}]}}]
    podAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        [{weight: 3, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {app: gateway}}}}]
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: batch}}, namespaces: [jobs]}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  priorityClassName: inference
  runtimeClassName: nvidia
  labels: {team: llm, app.kubernetes.io/part-of: assistant}
  annotations: {sidecar.istio.io/inject: 'false'}
  imagePullSecrets: [{name: registry}]
  resources: {requests: {cpu: '4'}, limits: {cpu: '16', memory: 8Gi}}
  proxy: {httpProxy: 'http://proxy:3128', httpsProxy: 'http://proxy:3128', noProxy: '.svc,10.0.0.0/8'}
  caBundle: {configMapKeyRef: {name: corporate-ca, key: ca.crt}}
";

/// The snapshot of `spec` after inspection.
fn inspected(spec: &str) -> Snapshot {
    let mut snapshot = testing::snapshot(spec);
    snapshot.nodes = vec![
        testing::node("cpu", 64 << 30, None),
        testing::node("small", 64 << 20, Some("Tesla-T4")),
        testing::node("large", 64 << 30, Some("Tesla-T4")),
    ];
    let assessment = testing::assessed(&snapshot);
    snapshot.jobs.push(JobState {
        name: "inspect".to_owned(),
        uid: "uid-inspect".to_owned(),
        kind: JobKind::Inspect {
            source: assessment.model.unwrap().source.id,
        },
        inputs: assessment.inspect_inputs,
        phase: JobPhase::Succeeded {
            at: testing::epoch(),
        },
        ours: true,
        suspended: false,
        deleting: false,
        created: testing::epoch(),
        failure: None,
        facts: Some(testing::facts("Q4_K_M")),
        blocked: None,
        progress: None,
    });
    snapshot
}

fn decision(step: Step) -> Decision {
    Decision {
        step,
        reason: Reason::Serving,
        message: String::new(),
        requeue: None,
        stalled: false,
    }
}

fn yaml<T: Serialize>(text: &mut String, object: &T) {
    write!(text, "---\n{}", serde_yaml::to_string(object).unwrap()).unwrap();
}

/// Inspect Job, claim, fetch Job, Deployment and Service of `spec` as YAML.
fn render(settings: &Settings, spec: &str) -> String {
    let mut snapshot = inspected(spec);
    let assessment = assess(settings, &snapshot).unwrap();
    let target = assessment.target.clone().unwrap();
    let entry = HistoryEntry {
        time: testing::epoch(),
        from: None,
        to: target.facts.quant,
        outcome: Outcome::Switched,
        reason: "Deployed".to_owned(),
        bytes_fetched: 9_000_000,
        outage_seconds: 0,
    };
    let mut text =
        "# Written by the tests of src/controller/build; update with UPDATE_GOLDEN=1.\n".to_owned();
    for step in [Step::Inspect, Step::Fetch, Step::Flip { entry }] {
        let last = matches!(step, Step::Flip { .. });
        let resources = build(settings, &assessment, &decision(step), &snapshot).unwrap();
        resources
            .claims
            .iter()
            .for_each(|claim| yaml(&mut text, claim));
        resources.jobs.iter().for_each(|job| yaml(&mut text, job));
        resources
            .deployments
            .iter()
            .for_each(|deployment| yaml(&mut text, deployment));
        if last {
            resources
                .services
                .iter()
                .for_each(|service| yaml(&mut text, service));
        }
        snapshot.jobs.clear();
    }
    text
}

#[track_caller]
fn check_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs: run UPDATE_GOLDEN=1 cargo test -p kimi-operator --lib and read the diff",
        path.display()
    );
}

/// Everything that stands around the servers.
const GUARDED: &str = "
{quant: Q4_K_M, hardware: CPU, source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}}, storage: {accessMode: ReadWriteMany},
 serving: {replicas: 3, networkPolicy: {from: [
   {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateway}}, podSelector: {matchLabels: {app: proxy}}}]}}}
";

#[test]
fn golden_guards() {
    let snapshot = inspected(GUARDED);
    let model = testing::assessed(&snapshot).model.unwrap();
    let mut text =
        "# Written by the tests of src/controller/build; update with UPDATE_GOLDEN=1.\n".to_owned();
    yaml(&mut text, &guards::budget(&model).unwrap());
    guards::policies(&model)
        .iter()
        .for_each(|policy| yaml(&mut text, policy));
    check_golden("objects-guards.yaml", &text);
}

/// Drivers refuse to attach a ReadOnlyMany volume for writing, whatever the container's mount says.
#[test]
fn a_read_only_volume_is_attached_read_only() {
    let attached = |mode: &str| {
        let volume = "source: {pvc: {claimName: weights}}\nquant: Q4_K_M\nhardware: CPU\n";
        let spec = format!("{volume}storage: {{accessMode: {mode}}}");
        let snapshot = testing::snapshot(&spec);
        let assessment = testing::assessed(&snapshot);
        let step = decision(Step::Inspect);
        let resources = build(&testing::settings(), &assessment, &step, &snapshot).unwrap();
        let job = resources.jobs[0].spec.clone().unwrap();
        let volumes = job.template.spec.unwrap().volumes.unwrap();
        let mut claims = volumes
            .into_iter()
            .filter_map(|volume| volume.persistent_volume_claim);
        claims.next().unwrap().read_only
    };
    assert_eq!(attached("ReadOnlyMany"), Some(true));
    assert_eq!(attached("ReadWriteMany"), None);
}

#[test]
fn guards_come_and_go_with_the_spec() {
    let built = |spec: &str, kinds: &[DeletedKind]| {
        let mut snapshot = inspected(spec);
        snapshot.guards = kinds
            .iter()
            .map(|kind| Deletion {
                kind: *kind,
                name: "reader".to_owned(),
                uid: "uid".to_owned(),
            })
            .collect();
        let assessment = testing::assessed(&snapshot);
        let step = decision(Step::Serving);
        build(&testing::settings(), &assessment, &step, &snapshot).unwrap()
    };
    let resources = built(MINIMAL, &[DeletedKind::Budget, DeletedKind::Policy]);
    assert!(
        resources.budgets.is_empty() && resources.policies.is_empty(),
        "one server needs none"
    );
    let gone = |resources: &Resources<Prepared>, kind| {
        resources
            .deletions
            .iter()
            .any(|deletion| deletion.kind == kind)
    };
    assert!(gone(&resources, DeletedKind::Budget) && gone(&resources, DeletedKind::Policy));
    let resources = built(GUARDED, &[DeletedKind::Budget]);
    assert_eq!((resources.budgets.len(), resources.policies.len()), (1, 2));
    assert!(!gone(&resources, DeletedKind::Budget), "wanted, so kept");
}

#[test]
fn the_least_spec() {
    check_golden(
        "objects-minimal.yaml",
        &render(&testing::settings(), MINIMAL),
    );
}

#[test]
fn the_fullest_spec() {
    let settings = Settings {
        run_as_user: Some(10001),
        fs_group: Some(10001),
        ..testing::settings()
    };
    check_golden("objects-full.yaml", &render(&settings, FULL));
}

fn assessed(spec: &str, change: impl FnOnce(&mut Snapshot)) -> Assessment {
    let mut snapshot = inspected(spec);
    change(&mut snapshot);
    testing::assessed(&snapshot)
}

#[test]
fn nodes_roll_no_server() {
    for spec in [MINIMAL, FULL] {
        let before = assessed(spec, |_| ()).target.unwrap().workload;
        let workload = |change: fn(&mut Snapshot)| {
            let running = |s: &mut Snapshot| {
                let mut running = testing::workload(&before, "Q4_K_M", true);
                running.gpu = spec == FULL;
                s.workloads.push(running);
                change(s);
            };
            assessed(spec, running).target.unwrap().workload
        };
        assert_eq!(before, workload(|s| s.nodes.clear()));
        assert_eq!(before, workload(|s| s.nodes[2].memory *= 4));
        assert_eq!(
            before,
            workload(|s| s
                .nodes
                .push(testing::node("new", 1 << 40, Some("Tesla-T4"))))
        );
    }
}

#[test]
fn what_makes_another_workload_and_what_does_not() {
    let workload = |change: fn(&mut spec::KimiModelSpec)| {
        assessed(FULL, |s| change(&mut s.spec))
            .target
            .map(|target| target.workload)
    };
    let before = workload(|_| ());
    assert!(before.is_some());
    for same in [
        workload(|spec| spec.serving.port = 80),
        workload(|spec| spec.serving.replicas = 0),
        workload(|spec| spec.suspend = true),
        workload(|spec| spec.storage.headroom = None),
        workload(|spec| spec.objective = spec::Objective::Edge),
    ] {
        assert_eq!(before, same);
    }
    for other in [
        workload(|spec| spec.serving.context_length = Some(1024)),
        workload(|spec| spec.serving.api_key_secret_ref = None),
        workload(|spec| spec.hardware = spec::HardwareName::L4),
    ] {
        assert!(other.is_some() && before != other);
    }
}

#[test]
fn names_stay_within_kubernetes_limits() {
    let longest = "m".repeat(spec::MAX_NAME);
    let id = names::short_hash("x");
    assert_eq!(id.len(), 10);
    // A Job's pods get six characters more, and the controller copies the Job's name into a label of at most 63.
    for name in [
        names::inspect_job(&longest, &id),
        names::fetch_job(&longest, &id),
        names::deployment(&longest, &id),
    ] {
        assert!(name.len() <= 63, "{name}");
    }
}

/// The fetch Job goes where the server fits, the server to any Node of the hardware.
#[test]
fn placement() {
    let snapshot = inspected(FULL);
    let assessment = testing::assessed(&snapshot);
    let resources = build(
        &testing::settings(),
        &assessment,
        &decision(Step::Fetch),
        &snapshot,
    )
    .unwrap();
    let job = serde_json::to_string(&resources.jobs[0]).unwrap();
    assert!(job.contains("large.host") && !job.contains("small.host") && !job.contains("cpu.host"));
    let resources = build(
        &testing::settings(),
        &assessment,
        &decision(Step::Start),
        &snapshot,
    )
    .unwrap();
    let deployment = serde_json::to_string(&resources.deployments[0]).unwrap();
    let hosts = deployment.matches(".host\"").count();
    assert_eq!(hosts, 1, "the spec's own selector alone");
    assert!(deployment.contains("Tesla-T4"));
    assert!(deployment.contains("\"nvidia.com/gpu\":\"1\""));
    let mut without = inspected(FULL);
    without.nodes.iter_mut().for_each(|node| node.gpus = 0);
    let target = testing::assessed(&without).target.unwrap();
    let template = serde_json::to_string(&target.template).unwrap();
    assert!(
        !template.contains("\"nvidia.com/gpu\":"),
        "a GPU that no Node advertises is not requested"
    );
}

/// A claim of the target as it might be found: made by an earlier spec.
fn live_claim(target: &Target) -> Claim {
    Claim {
        source: "earlier".to_owned(),
        verified: None,
        requested: 77,
        storage_class: Some("slow".to_owned()),
        ..testing::claim(target.facts.clone())
    }
}

fn requested(spec: &str, step: Step, change: impl FnOnce(&mut Claim)) -> String {
    let mut snapshot = inspected(spec);
    let assessment = testing::assessed(&snapshot);
    let mut claim = live_claim(assessment.target.as_ref().unwrap());
    change(&mut claim);
    snapshot.claims.push(claim);
    let settings = testing::settings();
    let resources = build(&settings, &assessment, &decision(step), &snapshot).unwrap();
    let spec = resources.claims[0].spec.clone().unwrap();
    spec.resources.unwrap().requests.unwrap()["storage"]
        .0
        .clone()
}

/// The one edit that mends a full volume; a volume that needs no more room is left alone.
#[test]
fn headroom_grows_a_claim_until_it_is_verified() {
    let wait = || Step::WaitFetch;
    assert_eq!(requested(FULL, wait(), |_| ()), "2009000000");
    let large = |claim: &mut Claim| claim.requested = 3_000_000_000;
    assert_eq!(
        requested(FULL, wait(), large),
        "3000000000",
        "never shrinks"
    );
    let verified = |claim: &mut Claim| {
        claim.verified = claim.facts.as_ref().map(names::verified_value);
    };
    assert_eq!(requested(FULL, wait(), verified), "77");
    let unbound = |claim: &mut Claim| claim.bound = false;
    assert_eq!(
        requested(FULL, wait(), unbound),
        "77",
        "the API server grows bound claims only"
    );
    assert_eq!(requested(MINIMAL, wait(), |_| ()), "77", "not asked for");
    for step in [Step::Fetch, Step::MarkVerified, Step::Suspended] {
        assert_eq!(
            requested(FULL, step, |_| ()),
            "77",
            "a refusal must not hold up what else the step writes"
        );
    }
}

/// Otherwise a live claim is repeated as it is: its class cannot change.
#[test]
fn an_existing_claim_is_not_resized() {
    let mut snapshot = inspected(FULL);
    let assessment = testing::assessed(&snapshot);
    let target = assessment.target.clone().unwrap();
    snapshot.claims.push(live_claim(&target));
    let resources = build(
        &testing::settings(),
        &assessment,
        &decision(Step::MarkVerified),
        &snapshot,
    )
    .unwrap();
    let claim = &resources.claims[0];
    let spec = claim.spec.as_ref().unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some("slow"));
    assert_eq!(
        spec.resources.as_ref().unwrap().requests.as_ref().unwrap()["storage"].0,
        "77"
    );
    let annotations = claim.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        annotations[names::ANNOTATION_VERIFIED],
        names::verified_value(&target.facts)
    );
    assert_ne!(
        claim.metadata.labels.as_ref().unwrap()[names::LABEL_SOURCE],
        "earlier"
    );
}

/// What the pods of a stopped server do is written on its Deployment once, when it is seen.
#[test]
fn the_end_of_a_stopped_server_is_dated() {
    let noted = |change: fn(&mut Workload)| {
        let mut snapshot = inspected(MINIMAL);
        let target = testing::assessed(&snapshot).target.unwrap();
        let mut old = testing::workload("0ld", "Q5_0", true);
        (old.replicas, old.stopped_at) = (0, Some(testing::epoch()));
        change(&mut old);
        snapshot.workloads = vec![testing::workload(&target.workload, "Q4_K_M", false), old];
        snapshot.service = Some(ServiceState {
            selected: Some("0ld".to_owned()),
            foreign_endpoints: 0,
            leads_to: None,
            last_switch: None,
            history: Vec::new(),
            given_up: None,
        });
        let assessment = testing::assessed(&snapshot);
        let waits = decision(Step::WaitReady);
        let scales = build(&testing::settings(), &assessment, &waits, &snapshot)
            .unwrap()
            .scales;
        let scale = scales
            .into_iter()
            .find(|scale| scale.deployment.ends_with("0ld"));
        scale.map(|scale| {
            assert_eq!(
                (scale.replicas, scale.stopped_at),
                (0, Some(testing::epoch()))
            );
            let new = |at: Option<Timestamp>| at == Some(snapshot.now);
            (new(scale.dark_at), new(scale.emptied_at))
        })
    };
    assert_eq!(noted(|_| ()), None);
    assert_eq!(noted(|old| old.pods[0].ready = false), Some((true, false)));
    let seen = |old: &mut Workload| {
        old.pods[0].ready = false;
        old.dark_at = Some(testing::epoch());
    };
    assert_eq!(noted(seen), None);
    assert_eq!(noted(|old| old.pods.clear()), Some((true, true)));
}
