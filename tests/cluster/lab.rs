//! What every test here starts from: the CRD, namespaces, the operator's own account, and one small model with its
//! facts. It must know no test.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kimi_operator::controller::Settings;
use kimi_operator::crd::KimiModel;
use kimi_operator::rbac;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config, CustomResourceExt, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sizing::Facts;

pub(crate) const NAME: &str = "reader";
pub(crate) const REPO: &str = "lab/Kimi-Tiny-GGUF";
/// The garbage collector learns of a new kind every 30 s, and forgets what it could not map for up to a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What the cluster in `KUBECONFIG` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nodes run pods.
    Nodes,
    /// No node, no scheduler: what pods do is the test's to say.
    ControlPlane,
}

/// A client of a cluster of the wanted kind; `None`, said aloud, where there is none.
pub(crate) async fn connect(wanted: Kind) -> Option<Client> {
    if std::env::var_os("KIMI_TEST_CLUSTER").is_none() {
        eprintln!(
            "skipped: set KIMI_TEST_CLUSTER=1 and KUBECONFIG to run this against an API server"
        );
        return None;
    }
    let control_plane = std::env::var("KIMI_CLUSTER").is_ok_and(|kind| kind == "control-plane");
    if control_plane != (wanted == Kind::ControlPlane) {
        eprintln!("skipped: this test needs a cluster of the other kind (KIMI_CLUSTER)");
        return None;
    }
    // Built beside the worker, rustls has two providers and would refuse to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.unwrap();
    install_crd(&client).await;
    Some(client)
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("kimi-operator-test").force();
    let crd = KimiModel::crd();
    crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
        .await
        .unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let waiting =
        kube::runtime::wait::await_condition(crds, "kimimodels.kimioperator.dev", established);
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
}

/// Makes the namespace with the account that the manifests bind in it, and gives the operator's configuration.
pub(crate) async fn operator_account(client: &Client, namespace: &str) -> Config {
    apply_cluster::<Namespace>(client, json!({"metadata": {"name": namespace}})).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}});
    apply::<ServiceAccount>(client, namespace, account).await;
    let rules = rbac::policy_rules();
    apply_cluster::<ClusterRole>(
        client,
        json!({"metadata": {"name": namespace}, "rules": rules}),
    )
    .await;
    let binding = |api_version: &str, role: &str| {
        json!({
            "apiVersion": api_version, "kind": format!("{role}Binding"), "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
        })
    };
    let version = "rbac.authorization.k8s.io/v1";
    apply_cluster::<ClusterRoleBinding>(client, binding(version, "ClusterRole")).await;
    let own = json!({"apiVersion": version, "kind": "Role", "metadata": {"name": namespace}, "rules": rbac::own_rules()});
    apply::<Role>(client, namespace, own).await;
    apply::<RoleBinding>(client, namespace, binding(version, "Role")).await;
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:operator"));
    config
}

pub(crate) fn settings() -> Settings {
    Settings {
        worker_image: "registry.invalid/kimi-worker:none".to_owned(),
        image_pull_policy: "Never".to_owned(),
        run_as_user: Some(65532),
        fs_group: Some(65532),
        forbidden_pod_fields: Vec::new(),
    }
}

pub(crate) async fn apply<K>(client: &Client, namespace: &str, object: Value) -> K
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Serialize,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("kimi-operator-test").force();
    Api::<K>::namespaced(client.clone(), namespace)
        .patch(&name, &params, &Patch::Apply(object))
        .await
        .unwrap()
}

pub(crate) async fn apply_cluster<K>(client: &Client, mut object: Value)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("kimi-operator-test").force();
    Api::<K>::all(client.clone())
        .patch(&name, &params, &Patch::Apply(object))
        .await
        .unwrap();
}

pub(crate) fn model(change: Value) -> Value {
    let mut spec =
        json!({"quant": "Q4_K_M", "hardware": "CPU", "source": {"huggingFace": {"repo": REPO}}});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "metadata": {"name": NAME}, "spec": spec})
}

/// What an inspect pod says of a quant of the small model.
pub(crate) fn facts(quant: &str) -> Facts {
    let digest = kimi_operator::names::short_hash(quant).repeat(7);
    let facts = json!({
        "repo": REPO, "commit": "c0ffee00".repeat(5), "path": quant, "quant": quant, "shards": 3,
        "bytes": 9_000_000, "digest": &digest[..64], "architecture": "deepseek2", "name": "Kimi Tiny",
        "contextLength": 4096,
        "hyper": {"layers": 4, "denseLayers": 1, "hidden": 256, "heads": 4, "kvLoraRank": 256, "ropeDim": 32,
                  "experts": 16, "expertsUsed": 4, "sharedExperts": 1, "vocab": 4096},
        "classes": [{"class": "Expert", "dtype": "Q4_K", "count": 9, "bytes": 4_800_000}],
        "expertSizes": [{"bytes": 100_000, "count": 48}]
    });
    serde_json::from_value(facts).unwrap()
}
