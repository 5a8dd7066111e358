//! The campaign's table: for each field of the spec, two good values, wrong ones, and the spec in which it counts. It
//! must know nothing of what a value does.

/// A spec that serves, as JSON.
#[derive(Clone, Copy)]
pub(super) enum Base {
    /// The small model from a repository of its own.
    Tiny,
    /// The same with both Secrets.
    Secrets,
    /// The same on a GPU's Node, served by the CPU.
    Fallback,
    /// A model of the catalogue.
    Catalogue,
    /// The quant chosen from the catalogue.
    Auto,
    /// The quant in a ConfigMap.
    ConfigMap,
    /// Weights on a volume that somebody else filled.
    Filled,
    /// The small model through a CA of the house.
    Ca,
}

impl Base {
    pub(super) fn spec(self) -> &'static str {
        match self {
            Self::Tiny => {
                r#"{"quant": "Q4_K_M", "hardware": "CPU", "source": {"huggingFace": {"repo": "lab/Kimi-Tiny-GGUF"}}}"#
            }
            Self::Secrets => {
                r#"{"quant": "Q4_K_M", "hardware": "CPU",
                    "source": {"huggingFace": {"repo": "lab/Kimi-Tiny-GGUF",
                        "tokenSecretRef": {"name": "hub", "key": "token"}}},
                    "serving": {"apiKeySecretRef": {"name": "clients", "key": "key"}}}"#
            }
            Self::Fallback => {
                r#"{"quant": "Q4_K_M", "hardware": "T4", "source": {"huggingFace": {"repo": "lab/Kimi-Tiny-GGUF"}},
                    "serving": {"cpuFallback": "Allow"}}"#
            }
            Self::Catalogue => {
                r#"{"model": "Kimi-K2-Instruct", "quant": "UD-Q2_K_XL", "hardware": "CPU"}"#
            }
            Self::Filled => {
                r#"{"quant": "Q4_K_M", "hardware": "CPU",
                    "source": {"pvc": {"claimName": "weights", "path": "models"}}}"#
            }
            Self::ConfigMap => {
                r#"{"hardware": "CPU", "source": {"huggingFace": {"repo": "lab/Kimi-Tiny-GGUF"}},
                    "quantFrom": {"configMapKeyRef": {"name": "guide", "key": "QUANT_TYPE"}}}"#
            }
            Self::Ca => {
                r#"{"quant": "Q4_K_M", "hardware": "CPU", "source": {"huggingFace": {"repo": "lab/Kimi-Tiny-GGUF"}},
                    "pod": {"caBundle": {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}}}}"#
            }
            Self::Auto => r#"{"model": "Kimi-K2-Instruct", "quant": "auto", "hardware": "CPU"}"#,
        }
    }
}

/// One field of the spec. Values are JSON; `null` takes the field out.
pub(super) struct Field {
    pub(super) path: &'static str,
    pub(super) base: Base,
    pub(super) set: &'static str,
    pub(super) change: &'static str,
    /// Values that must not serve.
    pub(super) wrong: &'static [&'static str],
    /// Read when a volume is made: an edit changes no volume that is there.
    pub(super) read_once: bool,
    /// Why a change shows nowhere in the cluster, if it may not.
    pub(super) no_effect: Option<&'static str>,
}

const fn field(
    path: &'static str,
    base: Base,
    set: &'static str,
    change: &'static str,
    wrong: &'static [&'static str],
) -> Field {
    Field {
        path,
        base,
        set,
        change,
        wrong,
        read_once: false,
        no_effect: None,
    }
}

const fn read_once(field: Field) -> Field {
    Field {
        read_once: true,
        ..field
    }
}

const fn no_effect(field: Field, reason: &'static str) -> Field {
    Field {
        no_effect: Some(reason),
        ..field
    }
}

/// The cluster in memory has one ConfigMap and gives it to whoever asks.
const ONE_CONFIG_MAP: &str = "which ConfigMap is read is the watch's work, not the planner's";

/// Rules of a transition, which end states do not show.
const HOW_NOT_WHERE: &str =
    "it says how an edit goes, not where it ends: see the tests of the planner";

/// The Nodes in memory have no labels.
const NO_LABELS: &str = "no selector but the empty one leaves a Node here: see validate/pod.rs";

/// The cluster in memory keeps no policies.
const BESIDE_THE_PODS: &str = "policies stand beside the pods: see build/tests.rs";

/// Every field of the spec.
pub(super) const FIELDS: &[Field] = &[
    field(
        "model",
        Base::Catalogue,
        r#""Kimi-K2-Instruct-0905""#,
        r#""Kimi-K2-Thinking""#,
        &[r#""Kimi-K9""#, r#""""#],
    ),
    field(
        "quant",
        Base::Tiny,
        r#""Q5_0""#,
        r#""Q8_0""#,
        &[r#""Q9_9""#, r#""../etc""#, "7"],
    ),
    no_effect(
        field(
            "quantFrom.configMapKeyRef.name",
            Base::ConfigMap,
            r#""other""#,
            r#""third""#,
            &[r#""No Name""#],
        ),
        ONE_CONFIG_MAP,
    ),
    no_effect(
        field(
            "quantFrom.configMapKeyRef.key",
            Base::ConfigMap,
            r#""other""#,
            r#""third""#,
            &[r#""..""#],
        ),
        ONE_CONFIG_MAP,
    ),
    field(
        "hardware",
        Base::Fallback,
        r#""H100""#,
        r#""CPU""#,
        &[r#""RTX""#],
    ),
    field(
        "objective",
        Base::Auto,
        r#""Quality""#,
        r#""Edge""#,
        &[r#""Speed""#],
    ),
    field(
        "memory",
        Base::Tiny,
        r#""1Gi""#,
        r#""2Gi""#,
        &[r#""1k""#, r#""lots""#],
    ),
    field(
        "source.huggingFace.repo",
        Base::Tiny,
        r#""lab/Other-GGUF""#,
        r#""lab/Third-GGUF""#,
        &[r#""no-owner""#],
    ),
    field(
        "source.huggingFace.revision",
        Base::Tiny,
        r#""v2""#,
        r#""refs/pr/1""#,
        &[r#""../main""#],
    ),
    field(
        "source.huggingFace.path",
        Base::Tiny,
        r#""files/a""#,
        r#""files/b""#,
        &[r#""/etc""#],
    ),
    field(
        "source.huggingFace.endpoint",
        Base::Tiny,
        r#""https://mirror.example""#,
        r#""http://hub.lan:8088""#,
        &[r#""ftp://x""#],
    ),
    field(
        "source.huggingFace.tokenSecretRef.name",
        Base::Secrets,
        r#""other""#,
        r#""third""#,
        &[r#""No Name""#],
    ),
    field(
        "source.huggingFace.tokenSecretRef.key",
        Base::Secrets,
        r#""other""#,
        r#""third""#,
        &[r#""..""#],
    ),
    field(
        "source.pvc.claimName",
        Base::Filled,
        r#""other""#,
        r#""third""#,
        &[r#""No Name""#],
    ),
    field(
        "source.pvc.path",
        Base::Filled,
        r#""files/a""#,
        r#""files/b""#,
        &[r#""/etc""#],
    ),
    read_once(field(
        "storage.storageClassName",
        Base::Tiny,
        r#""fast""#,
        r#""slow""#,
        &[r#""No Class""#],
    )),
    read_once(field(
        "storage.headroom",
        Base::Tiny,
        r#""2G""#,
        r#""4G""#,
        &[r#""much""#],
    )),
    read_once(field(
        "storage.accessMode",
        Base::Tiny,
        r#""ReadWriteMany""#,
        r#""ReadWriteOnce""#,
        &[r#""ReadOnly""#],
    )),
    no_effect(
        field("storage.keepQuants", Base::Tiny, "0", "3", &["-1", "65"]),
        "it counts volumes of earlier quants, and a fresh model has none: see simulation/storage.rs",
    ),
    field(
        "storage.whenDeleted",
        Base::Tiny,
        r#""Delete""#,
        r#""Retain""#,
        &[r#""Perhaps""#],
    ),
    field("serving.replicas", Base::Tiny, "0", "1", &["2", "-1"]),
    field(
        "serving.contextLength",
        Base::Tiny,
        "1024",
        "2048",
        &["1", "1000000"],
    ),
    field("serving.port", Base::Tiny, "9000", "80", &["0", "70000"]),
    field(
        "serving.apiKeySecretRef.name",
        Base::Secrets,
        r#""other""#,
        r#""third""#,
        &[r#""No Name""#],
    ),
    field(
        "serving.apiKeySecretRef.key",
        Base::Secrets,
        r#""other""#,
        r#""third""#,
        &[r#""..""#],
    ),
    field(
        "serving.cpuFallback",
        Base::Fallback,
        r#""Deny""#,
        r#""Allow""#,
        &[r#""Perhaps""#],
    ),
    no_effect(
        field(
            "rollout.strategy",
            Base::Tiny,
            r#""Replace""#,
            r#""Staged""#,
            &[r#""Canary""#],
        ),
        HOW_NOT_WHERE,
    ),
    field(
        "rollout.progressDeadlineSeconds",
        Base::Tiny,
        "60",
        "600",
        &["1", r#""long""#],
    ),
    no_effect(
        field(
            "rollout.maxOutageSeconds",
            Base::Tiny,
            "0",
            "60",
            &["-1", "604801"],
        ),
        HOW_NOT_WHERE,
    ),
    no_effect(
        field(
            "rollout.engineUpdate",
            Base::Tiny,
            r#""Automatic""#,
            r#""Manual""#,
            &[r#""Never""#],
        ),
        HOW_NOT_WHERE,
    ),
    no_effect(
        field(
            "pod.nodeSelector",
            Base::Tiny,
            r#"{}"#,
            r#"{}"#,
            &[r#"{"a b": "c"}"#, r#""x""#],
        ),
        NO_LABELS,
    ),
    field(
        "pod.tolerations",
        Base::Tiny,
        r#"[{"operator": "Exists"}]"#,
        r#"[{"key": "dedicated", "value": "llm"}]"#,
        &[r#"[{"operator": "Equal"}]"#, r#""x""#],
    ),
    field(
        "pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        Base::Tiny,
        r#"[{"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}]"#,
        r#"[{"matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}]"#,
        &[
            r#"[{"matchExpressions": [{"key": "a b", "operator": "Exists"}]}]"#,
            r#""x""#,
        ],
    ),
    field(
        "pod.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        Base::Tiny,
        r#"[{"weight": 5, "preference": {"matchExpressions": [{"key": "nvme", "operator": "Exists"}]}}]"#,
        r#"[{"weight": 5, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}]"#,
        &[
            r#"[{"weight": 5, "preference": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}]"#,
            r#""x""#,
        ],
    ),
    field(
        "pod.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        Base::Tiny,
        r#"[{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}}]"#,
        r#"[{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "b"}}}]"#,
        &[r#"[{"topologyKey": "a b", "labelSelector": {}}]"#, r#""x""#],
    ),
    field(
        "pod.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        Base::Tiny,
        r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}}}]"#,
        r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "b"}}}}]"#,
        &[
            r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "a b", "labelSelector": {}}}]"#,
            r#""x""#,
        ],
    ),
    field(
        "pod.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        Base::Tiny,
        r#"[{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}}]"#,
        r#"[{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "b"}}}]"#,
        &[r#"[{"topologyKey": "a b", "labelSelector": {}}]"#, r#""x""#],
    ),
    field(
        "pod.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        Base::Tiny,
        r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}}}]"#,
        r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "b"}}}}]"#,
        &[
            r#"[{"weight": 5, "podAffinityTerm": {"topologyKey": "a b", "labelSelector": {}}}]"#,
            r#""x""#,
        ],
    ),
    field(
        "pod.topologySpreadConstraints",
        Base::Tiny,
        r#"[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]"#,
        r#"[{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}]"#,
        &[
            r#"[{"maxSkew": 1, "topologyKey": "a b", "whenUnsatisfiable": "ScheduleAnyway"}]"#,
            r#""x""#,
        ],
    ),
    field(
        "pod.priorityClassName",
        Base::Tiny,
        r#""high""#,
        r#""low""#,
        &[r#""No Class""#],
    ),
    field(
        "pod.runtimeClassName",
        Base::Tiny,
        r#""kata""#,
        r#""nvidia""#,
        &[r#""No Class""#],
    ),
    field(
        "pod.labels",
        Base::Tiny,
        r#"{"team": "a"}"#,
        r#"{"team": "b"}"#,
        &[r#"{"kimioperator.dev/workload": "x"}"#, r#""x""#],
    ),
    field(
        "pod.annotations",
        Base::Tiny,
        r#"{"team": "a"}"#,
        r#"{"team": "b"}"#,
        &[r#"{"kimioperator.dev/facts": "x"}"#, r#""x""#],
    ),
    field(
        "pod.imagePullSecrets",
        Base::Tiny,
        r#"[{"name": "a"}]"#,
        r#"[{"name": "b"}]"#,
        &[r#"[{"name": "No Name"}]"#],
    ),
    field(
        "pod.resources.requests",
        Base::Tiny,
        r#"{"cpu": "2"}"#,
        r#"{"cpu": "4"}"#,
        &[r#"{"memory": "1Gi"}"#],
    ),
    field(
        "pod.resources.limits",
        Base::Tiny,
        r#"{"cpu": "8"}"#,
        r#"{"cpu": "16"}"#,
        &[r#"{"cpu": "many"}"#],
    ),
    field(
        "pod.proxy.httpProxy",
        Base::Tiny,
        r#""http://proxy:3128""#,
        r#""http://other:3128""#,
        &[r#""http://user:pw@proxy""#],
    ),
    field(
        "pod.proxy.httpsProxy",
        Base::Tiny,
        r#""http://proxy:3128""#,
        r#""http://other:3128""#,
        &[r#""proxy""#],
    ),
    field(
        "pod.proxy.noProxy",
        Base::Tiny,
        r#"".svc""#,
        r#""10.0.0.0/8""#,
        &[r#""a b""#],
    ),
    field(
        "pod.caBundle.configMapKeyRef.name",
        Base::Ca,
        r#""other""#,
        r#""third""#,
        &[r#""No Name""#],
    ),
    field(
        "pod.caBundle.configMapKeyRef.key",
        Base::Ca,
        r#""other""#,
        r#""third""#,
        &[r#""..""#],
    ),
    no_effect(
        field(
            "serving.networkPolicy.from",
            Base::Tiny,
            r#"[]"#,
            r#"[{"podSelector": {"matchLabels": {"app": "a"}}}]"#,
            &[r#"[{}]"#, r#""x""#],
        ),
        BESIDE_THE_PODS,
    ),
    field("suspend", Base::Tiny, "true", "false", &[r#""yes""#]),
];
