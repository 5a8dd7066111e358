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
    field("suspend", Base::Tiny, "true", "false", &[r#""yes""#]),
];
