//! The operator's dealings with a real API server: CRD and CEL, server-side apply that settles, the status subresource,
//! a taken name. Needs no images.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kimi_operator::controller;
use kimi_operator::crd::KimiModel;
use kimi_operator::names;
use kimi_operator::telemetry::Telemetry;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::lab::{self, Kind, NAME, PATIENCE, REPO, apply, facts, model};

/// A namespace of our own with the operator running in this process, as the ServiceAccount that the manifests bind.
struct Scene {
    client: Client,
    namespace: String,
    telemetry: Arc<Telemetry>,
    operator: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn start(name: &str) -> Option<Self> {
        let client = lab::connect(Kind::Nodes).await?;
        let installed = ListParams::default().labels("app.kubernetes.io/name=kimi-operator");
        let installed = Api::<Deployment>::all(client.clone())
            .list(&installed)
            .await
            .unwrap();
        if !installed.items.is_empty() {
            eprintln!(
                "skipped: an operator is installed on this cluster and would act on the same objects"
            );
            return None;
        }
        let namespace = format!("kimi-test-{name}-{}", std::process::id());
        let config = lab::operator_account(&client, &namespace).await;
        let operator = Client::try_from(config).unwrap();
        let telemetry = Arc::new(Telemetry::new());
        let (watched, shared) = (Some(namespace.clone()), Arc::clone(&telemetry));
        let operator = tokio::spawn(async move {
            controller::run(operator, watched, lab::settings(), shared, None)
                .await
                .unwrap();
        });
        Some(Self {
            client,
            namespace,
            telemetry,
            operator,
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies the model with a change of its spec; its UID.
    async fn apply_model(&self, change: Value) -> String {
        let model = apply::<KimiModel>(&self.client, &self.namespace, model(change)).await;
        model.uid().unwrap()
    }

    /// A model whose weights are on their volume already. Suspended until they are: it would start to inspect.
    async fn filled_model(&self) -> String {
        let uid = self.apply_model(json!({"suspend": true})).await;
        apply::<PersistentVolumeClaim>(&self.client, &self.namespace, filled_claim(&uid)).await;
        self.apply_model(json!({})).await
    }

    /// Waits until the one claim is as `done` wants it.
    async fn wait_claim(&self, what: &str, done: impl Fn(&PersistentVolumeClaim) -> bool) {
        let start = Instant::now();
        loop {
            let claims = self.api::<PersistentVolumeClaim>();
            let claims = claims.list(&ListParams::default()).await.unwrap().items;
            assert_eq!(claims.len(), 1, "{what}");
            if done(&claims[0]) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no {what}: {:?}",
                claims[0].metadata
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until `done` holds for the model's status.
    async fn wait(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let model =
                serde_json::to_value(self.api::<KimiModel>().get(NAME).await.unwrap()).unwrap();
            if done(&model["status"]) {
                return model;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}: {}", model["status"]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) {
        self.operator.abort();
        let all = DeleteParams::default();
        Api::<Namespace>::all(self.client.clone())
            .delete(&self.namespace, &all)
            .await
            .unwrap();
        Api::<ClusterRoleBinding>::all(self.client.clone())
            .delete(&self.namespace, &all)
            .await
            .unwrap();
        Api::<ClusterRole>::all(self.client.clone())
            .delete(&self.namespace, &all)
            .await
            .unwrap();
    }
}

/// A volume that holds the verified artifact already: the operator then needs no Job.
fn filled_claim(owner: &str) -> Value {
    let facts = facts("Q4_K_M");
    let artifact = names::artifact_id(&facts);
    let mut labels = names::component_labels(NAME, names::Component::Fetch);
    labels.insert(names::LABEL_ARTIFACT.to_owned(), artifact.clone());
    labels.insert(
        names::LABEL_SOURCE.to_owned(),
        names::source_id(None, REPO, "main", None, "Q4_K_M"),
    );
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names::claim(NAME, &artifact), "labels": labels,
            "annotations": {
                names::ANNOTATION_OWNER: owner,
                names::ANNOTATION_FACTS: facts.to_json(),
                names::ANNOTATION_VERIFIED: names::verified_value(&facts),
            },
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}},
    })
}

fn word<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let all = status["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == kind);
    let field = |name: &str| {
        found
            .and_then(|condition| condition[name].as_str())
            .unwrap_or_default()
    };
    (field("status"), field("reason"))
}

/// Writes that the operator has sent, those that changed nothing too.
fn writes(scene: &Scene) -> u64 {
    let metrics = scene.telemetry.encode().unwrap();
    let counted = metrics
        .lines()
        .filter(|line| line.starts_with("kimi_operator_api_writes_total"));
    counted
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Waits for three seconds without a write: what a pod goes through meanwhile is written, an idle operator writes
/// nothing.
async fn quiet(scene: &Scene) {
    let start = Instant::now();
    loop {
        let before = writes(scene);
        tokio::time::sleep(Duration::from_secs(3)).await;
        if before == writes(scene) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the operator goes on writing");
    }
}

#[tokio::test]
async fn apply_settles_and_the_status_comes_back() {
    let Some(scene) = Scene::start("settle").await else {
        return;
    };
    scene.filled_model().await;
    // The image cannot be had, which is as far as a model gets without one.
    let model = scene
        .wait("blocked server", |status| {
            word(status, "Stalled").1 == "PodBlocked"
        })
        .await;
    assert_eq!(
        word(&model["status"], "ArtifactReady"),
        ("True", "Verified")
    );
    assert_eq!(
        model["status"]["observedGeneration"],
        model["metadata"]["generation"]
    );
    assert!(
        scene
            .api::<Job>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty(),
        "a Job was made"
    );
    let deployments = scene
        .api::<Deployment>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(deployments.items.len(), 1);
    let service = scene.api::<Service>().get(NAME).await.unwrap();
    let selector = service.spec.unwrap().selector.unwrap();
    assert_eq!(
        selector[names::LABEL_WORKLOAD],
        names::NO_WORKLOAD,
        "nothing has passed its self-test"
    );

    let managers: Vec<String> = deployments.items[0]
        .managed_fields()
        .iter()
        .filter(|entry| entry.subresource.is_none())
        .filter_map(|entry| entry.manager.clone())
        .collect();
    assert!(
        managers.contains(&names::FIELD_MANAGER.to_owned()),
        "{managers:?}"
    );

    quiet(&scene).await;
    let before = writes(&scene);

    // Another manager's condition stays and wakes nobody; a deleted status is written again.
    let condition = json!({"type": "Audited", "status": "True", "reason": "Test", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let foreign = json!({"apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel",
        "status": {"conditions": [condition]}});
    let auditor = PatchParams::apply("auditor");
    scene
        .api::<KimiModel>()
        .patch_status(NAME, &auditor, &Patch::Apply(foreign))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        before,
        writes(&scene),
        "a condition of others is not ours to touch"
    );
    let model = scene
        .wait("both", |status| word(status, "Audited").0 == "True")
        .await;
    assert_eq!(word(&model["status"], "Stalled").0, "True");
    let gone = Patch::Merge(json!({"status": null}));
    scene
        .api::<KimiModel>()
        .patch_status(NAME, &PatchParams::default(), &gone)
        .await
        .unwrap();
    scene
        .wait("status again", |status| {
            word(status, "Stalled").1 == "PodBlocked"
        })
        .await;

    // Deletion is the garbage collector's work.
    scene
        .api::<KimiModel>()
        .delete(NAME, &DeleteParams::default())
        .await
        .unwrap();
    let start = Instant::now();
    while !scene
        .api::<Deployment>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .is_empty()
    {
        assert!(
            start.elapsed() < PATIENCE,
            "the Deployment outlives its model"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_and_heals() {
    let Some(scene) = Scene::start("taken").await else {
        return;
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
        "spec": {"ports": [{"port": 80}]}});
    apply::<Service>(&scene.client, &scene.namespace, service).await;
    scene.apply_model(json!({})).await;
    scene
        .wait("NameTaken", |status| {
            word(status, "Stalled").1 == "NameTaken"
        })
        .await;
    let port = |service: &Service| service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port;
    assert_eq!(
        port(&scene.api::<Service>().get(NAME).await.unwrap()),
        80,
        "somebody else's Service was changed"
    );

    scene
        .api::<Service>()
        .delete(NAME, &DeleteParams::default())
        .await
        .unwrap();
    scene
        .wait("healing", |status| {
            word(status, "Stalled").1 != "NameTaken" && !status["endpoint"].is_null()
        })
        .await;
    scene.end().await;
}

#[tokio::test]
async fn the_schema_fills_in_and_refuses() {
    let Some(scene) = Scene::start("schema").await else {
        return;
    };
    let models = scene.api::<KimiModel>();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let create = |change: Value| {
        let object: KimiModel = serde_json::from_value(model(change)).unwrap();
        let (models, dry_run) = (models.clone(), dry_run.clone());
        async move { models.create(&dry_run, &object).await }
    };
    let made = create(json!({})).await.unwrap();
    assert_eq!(
        (made.spec.0.serving.replicas, made.spec.0.serving.port),
        (1, 8080)
    );
    for change in [
        json!({"quant": "../../etc/passwd"}),
        json!({"quant": ""}),
        json!({"quant": "auto"}),
        json!({"memory": "lots"}),
        json!({"serving": {"replicas": 2}}),
        json!({"source": {"huggingFace": {"repo": "no-owner"}}}),
        json!({"source": null}),
    ] {
        let refused = create(change.clone()).await;
        assert!(
            matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422),
            "{change}: {refused:?}"
        );
    }
    scene.end().await;
}

/// Ownership is a merge patch beside an apply: only the API server knows what becomes of a field that both touch.
#[tokio::test]
async fn a_claim_follows_when_deleted_and_outlives_its_model() {
    let Some(scene) = Scene::start("volumes").await else {
        return;
    };
    let first = scene.filled_model().await;
    let owned = |claim: &PersistentVolumeClaim| claim.owner_references().len();
    scene
        .wait("verified weights", |status| {
            word(status, "ArtifactReady") == ("True", "Verified")
        })
        .await;
    for (when_deleted, owners) in [("Delete", 1), ("Retain", 0), ("Delete", 1), ("Retain", 0)] {
        let change = json!({"storage": {"whenDeleted": when_deleted}});
        scene.apply_model(change).await;
        scene
            .wait_claim(when_deleted, |claim| owned(claim) == owners)
            .await;
    }
    quiet(&scene).await;

    let models = scene.api::<KimiModel>();
    models.delete(NAME, &DeleteParams::default()).await.unwrap();
    let start = Instant::now();
    while models.get_opt(NAME).await.unwrap().is_some() {
        assert!(start.elapsed() < PATIENCE, "the model does not go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene
        .wait_claim("retained claim", |claim| {
            claim.annotations()[names::ANNOTATION_OWNER] == first
        })
        .await;

    let second = scene.apply_model(json!({})).await;
    assert_ne!(first, second);
    scene
        .wait_claim("new owner, to be checked again", |claim| {
            let annotations = claim.annotations();
            annotations[names::ANNOTATION_OWNER] == second
                && !annotations.contains_key(names::ANNOTATION_VERIFIED)
        })
        .await;
    let start = Instant::now();
    let fetches = |job: &Job| job.name_any().contains("-fetch-");
    while !scene
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .iter()
        .any(fetches)
    {
        assert!(start.elapsed() < PATIENCE, "no Job checks the claim");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.end().await;
}
