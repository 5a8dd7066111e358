//! Reading a `KimiModel` document from YAML without a cluster, as strictly as the API server would. It must know
//! no file system: it takes text.

use serde::Deserialize;
use serde_json::Value;

use crate::check::{Violation, check, check_name};
use crate::fields::KimiModelSpec;
use crate::{GROUP, KIND, VERSION};

/// Larger documents are refused before parsing: a spec is a screenful.
const MAX_TEXT: usize = 1 << 20;

/// One `KimiModel` as written by a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub name: String,
    pub namespace: Option<String>,
    pub spec: KimiModelSpec,
}

/// Why a text is no usable `KimiModel`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file is {0} bytes; a KimiModel is at most {MAX_TEXT}")]
    TooLarge(usize),
    #[error("not YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("no document with apiVersion {GROUP}/{VERSION} and kind {KIND} in the file")]
    NoKimiModel,
    #[error("the file holds {0} KimiModels; give one")]
    Several(usize),
    #[error("{0}")]
    Field(String),
    #[error("unknown field {0}; see docs/crd.md for the fields there are")]
    UnknownField(String),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Reads the one `KimiModel` of a YAML text, which may hold other objects beside it, and checks every rule that
/// the schema checks. Unknown fields are errors, as with `kubectl apply --validate=strict`.
pub fn load(text: &str) -> Result<Document, Error> {
    let mut documents = load_all(text)?;
    match (documents.pop(), documents.len()) {
        (Some(document), 0) => Ok(document),
        (Some(_), others) => Err(Error::Several(others + 1)),
        (None, _) => Err(Error::NoKimiModel),
    }
}

/// Reads every `KimiModel` of a YAML text, as strictly as [`load`]; other objects are skipped.
pub fn load_all(text: &str) -> Result<Vec<Document>, Error> {
    if text.len() > MAX_TEXT {
        return Err(Error::TooLarge(text.len()));
    }
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        let is = |key: &str, wanted: &str| value.get(key).and_then(Value::as_str) == Some(wanted);
        if is("kind", KIND) && is("apiVersion", &format!("{GROUP}/{VERSION}")) {
            documents.push(read(&value)?);
        }
    }
    Ok(documents)
}

fn read(model: &Value) -> Result<Document, Error> {
    let text_of = |key: &str| {
        model
            .pointer(&format!("/metadata/{key}"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let name =
        text_of("name").ok_or_else(|| Error::Field("metadata.name is missing".to_owned()))?;
    check_name(&name)?;
    let raw = model
        .get("spec")
        .ok_or_else(|| Error::Field("spec is missing".to_owned()))?;
    let spec: KimiModelSpec =
        serde_json::from_value(raw.clone()).map_err(|e| Error::Field(format!("spec: {e}")))?;
    let known = serde_json::to_value(&spec).map_err(|e| Error::Field(e.to_string()))?;
    if let Some(path) = unknown_field(raw, &known, "spec") {
        return Err(Error::UnknownField(path));
    }
    check(&spec)?;
    Ok(Document {
        name,
        namespace: text_of("namespace"),
        spec,
    })
}

/// The first field given that the parsed spec does not have. Explicit nulls count as absent.
fn unknown_field(given: &Value, known: &Value, path: &str) -> Option<String> {
    let given = match given {
        Value::Object(given) => given,
        Value::Array(items) => {
            let known = known.as_array().map_or(&[][..], Vec::as_slice);
            return items
                .iter()
                .zip(known)
                .enumerate()
                .find_map(|(index, (item, known))| {
                    unknown_field(item, known, &format!("{path}[{index}]"))
                });
        }
        _ => return None,
    };
    given
        .iter()
        .filter(|(_, value)| !value.is_null())
        .find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match known.get(key) {
                None => Some(path),
                Some(known) => unknown_field(value, known, &path),
            }
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{CpuFallback, HardwareName, Objective};

    const HEAD: &str = "apiVersion: kimioperator.dev/v1alpha1\nkind: KimiModel\nmetadata: {name: kimi-k2, namespace: llm}\n";

    fn load_spec(spec: &str) -> Result<Document, Error> {
        load(&format!("{HEAD}spec: {spec}\n"))
    }

    #[test]
    fn twelve_lines_are_enough() {
        let document =
            load_spec("{model: Kimi-K2-Instruct, quant: UD-Q2_K_XL, hardware: T4}").unwrap();
        assert_eq!(
            (document.name.as_str(), document.namespace.as_deref()),
            ("kimi-k2", Some("llm"))
        );
        assert_eq!(document.spec.hardware, HardwareName::T4);
        assert_eq!(document.spec.objective, Objective::Production);
        assert_eq!(document.spec.serving.replicas, 1);
        assert_eq!(document.spec.serving.port, 8080);
        assert_eq!(document.spec.serving.cpu_fallback, CpuFallback::Deny);
        assert!(!document.spec.suspend);
    }

    #[test]
    fn refusals_name_the_field() {
        let cases = [
            ("{quant: Q4_K_M, hardware: CPU}", "spec.model: give model"),
            (
                "{model: M, quant: Q4_K_M, hardware: T5}",
                "unknown variant `T5`",
            ),
            (
                "{model: M, quant: a..b, hardware: CPU}",
                "spec.quant: must be a name",
            ),
            (
                "{model: M, quant: ../b, hardware: CPU}",
                "spec.quant: must be a name",
            ),
            ("{model: M, hardware: CPU}", "spec.quant: give quant, or"),
            (
                "{model: M, quant: Q, quantFrom: {configMapKeyRef: {name: c, key: Q}}, hardware: CPU}",
                "spec.quant: give quant, or",
            ),
            (
                "{model: M, quantFrom: {configMapKeyRef: {name: c, key: a/b}}, hardware: CPU}",
                "spec.quantFrom.configMapKeyRef: must give",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, memory: 1Zi}",
                "spec.memory: must be a quantity",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, speed: 3}",
                "unknown field spec.speed",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, serving: {replica: 1}}",
                "unknown field spec.serving.replica",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, serving: {replicas: 2}}",
                "spec.serving.replicas: more than one replica needs",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, rollout: {progressDeadlineSeconds: 59}}",
                "spec.rollout.progressDeadlineSeconds: must be between 60",
            ),
            (
                "{model: M, quant: Q, hardware: CPU, rollout: {maxOutageSeconds: 604801}}",
                "spec.rollout.maxOutageSeconds: must be at most",
            ),
            (
                "{quant: auto, hardware: CPU, source: {huggingFace: {repo: a/b}}}",
                "spec.quant: auto chooses",
            ),
            (
                "{quant: Q, hardware: CPU, source: {huggingFace: {repo: ab}}}",
                "repo: must be owner/name",
            ),
            (
                "{quant: Q, hardware: CPU, source: {huggingFace: {repo: a/b, endpoint: 'https://u:p@h'}}}",
                "endpoint: must be an http",
            ),
        ];
        for (spec, wanted) in cases {
            let error = load_spec(spec).unwrap_err().to_string();
            assert!(error.contains(wanted), "{spec}: {error}");
        }
    }

    #[test]
    fn other_documents_are_skipped_and_two_models_are_refused() {
        let model = format!("{HEAD}spec: {{model: M, quant: Q, hardware: CPU}}\n");
        assert!(load(&format!("kind: Namespace\n---\n{model}")).is_ok());
        assert!(matches!(load("kind: Namespace\n"), Err(Error::NoKimiModel)));
        assert!(matches!(
            load(&format!("{model}---\n{model}")),
            Err(Error::Several(2))
        ));
        let two = format!("{model}---\nkind: Job\n---\n{model}");
        assert_eq!(load_all(&two).unwrap().len(), 2);
        assert!(matches!(load("{"), Err(Error::Yaml(_))));
    }

    #[test]
    fn names_are_service_names() {
        for (name, legal) in [
            ("kimi", true),
            ("1kimi", false),
            ("kimi-", false),
            ("Kimi", false),
            ("a.b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), legal, "{name}");
        }
        assert!(check_name(&"a".repeat(40)).is_ok());
        assert!(check_name(&"a".repeat(41)).is_err());
    }
}
