//! The schema's rules as code, for documents that pass no API server and as the operator's second look. It must
//! know no tables: whether a model or a quant exists is decided elsewhere.

use crate::fields::{
    AUTO_QUANT, AccessMode, ConfigMapKeyRef, FilledVolume, HuggingFace, KimiModelSpec, QuantFrom,
    Rollout, SecretKeyRef,
};
use crate::{MAX_NAME, parse_quantity};

/// One broken rule: the field and what it must look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Violation {
    pub field: &'static str,
    pub message: String,
}

/// Checks what the schema checks; the first broken rule, in field order.
pub fn check(spec: &KimiModelSpec) -> Result<(), Violation> {
    let KimiModelSpec {
        model,
        quant,
        quant_from,
        hardware: _,
        objective: _,
        memory,
        source,
        storage,
        serving,
        rollout,
        pod,
        suspend: _,
    } = spec;
    if model.is_none() && source.is_none() {
        return fail(
            "spec.model",
            "give model (a name from the catalogue) or source.huggingFace.repo",
        );
    }
    if let Some(model) = model {
        ensure(
            "spec.model",
            is_component(model, 63),
            "must be a name of letters, digits, '.', '_' and '-'",
        )?;
    }
    match (quant, quant_from) {
        (Some(quant), None) => check_quant("spec.quant", quant, model.is_some())?,
        (None, Some(from)) => check_quant_from(from)?,
        (Some(_), Some(_)) | (None, None) => {
            return fail("spec.quant", "give quant, or quantFrom instead of it");
        }
    }
    check_quantity("spec.memory", memory.as_deref())?;
    check_quantity("spec.storage.headroom", storage.headroom.as_deref())?;
    if let Some(class) = &storage.storage_class_name {
        ensure(
            "spec.storage.storageClassName",
            is_subdomain(class),
            "must be the name of a StorageClass",
        )?;
    }
    ensure(
        "spec.storage.keepQuants",
        storage.keep_quants.is_none_or(|keep| keep <= 64),
        "must be at most 64; leave it out to keep all",
    )?;
    if let Some(source) = source {
        match (&source.hugging_face, &source.pvc) {
            (Some(hub), None) => check_source(hub)?,
            (None, Some(volume)) => {
                check_volume(volume)?;
                ensure(
                    "spec.quant",
                    quant.as_deref() != Some(AUTO_QUANT),
                    "auto chooses what to fetch: with source.pvc name the quant that the volume holds",
                )?;
            }
            (Some(_), Some(_)) | (None, None) => {
                return fail("spec.source", "give huggingFace, or pvc instead of it");
            }
        }
    }
    ensure(
        "spec.serving.replicas",
        (0..=1000).contains(&serving.replicas),
        "must be between 0 and 1000",
    )?;
    ensure(
        "spec.serving.replicas",
        serving.replicas <= 1 || storage.access_mode.is_shared(),
        "more than one replica needs storage.accessMode ReadWriteMany, or ReadOnlyMany with source.pvc: one Node mounts \
         any other volume",
    )?;
    ensure(
        "spec.storage.accessMode",
        storage.access_mode != AccessMode::ReadOnlyMany
            || source.as_ref().is_some_and(|source| source.pvc.is_some()),
        "ReadOnlyMany leaves nobody to write the weights: give source.pvc, a volume that is filled",
    )?;
    ensure(
        "spec.serving.port",
        serving.port > 0,
        "must be between 1 and 65535",
    )?;
    if let Some(context) = serving.context_length {
        ensure(
            "spec.serving.contextLength",
            (128..=1_048_576).contains(&context),
            "must be between 128 and 1048576",
        )?;
    }
    check_secret(
        "spec.serving.apiKeySecretRef",
        serving.api_key_secret_ref.as_ref(),
    )?;
    for peer in serving
        .network_policy
        .iter()
        .flat_map(|policy| &policy.from)
    {
        crate::pod::check_peer(peer)?;
    }
    check_rollout(rollout)?;
    crate::pod::check(pod)
}

/// Longest deadline or outage, in seconds: a week.
const MAX_SECONDS: u32 = 604_800;

fn check_rollout(rollout: &Rollout) -> Result<(), Violation> {
    let Rollout {
        progress_deadline_seconds,
        strategy: _,
        max_outage_seconds,
        engine_update: _,
    } = rollout;
    ensure(
        "spec.rollout.progressDeadlineSeconds",
        progress_deadline_seconds.is_none_or(|seconds| (60..=MAX_SECONDS).contains(&seconds)),
        "must be between 60 and 604800",
    )?;
    ensure(
        "spec.rollout.maxOutageSeconds",
        max_outage_seconds.is_none_or(|seconds| seconds <= MAX_SECONDS),
        "must be at most 604800",
    )
}

/// Checks a quant, wherever it stands: `field` names the place. `auto` needs a model of the catalogue.
pub fn check_quant(field: &'static str, quant: &str, has_model: bool) -> Result<(), Violation> {
    ensure(
        field,
        is_component(quant, 63),
        "must be a name of letters, digits, '.', '_' and '-'",
    )?;
    ensure(
        field,
        quant != AUTO_QUANT || has_model,
        "auto chooses from the catalogue: give model, or name the quant",
    )
}

fn check_quant_from(from: &QuantFrom) -> Result<(), Violation> {
    let QuantFrom {
        config_map_key_ref: ConfigMapKeyRef { name, key },
    } = from;
    ensure(
        "spec.quantFrom.configMapKeyRef",
        is_subdomain(name) && dotted(key, 253),
        "must give the name of a ConfigMap and a key in it",
    )
}

/// Checks an object's name: RFC 1035 label of at most [`MAX_NAME`] characters, since it names Services.
pub fn check_name(name: &str) -> Result<(), Violation> {
    let legal = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    ensure(
        "metadata.name",
        legal,
        "must be at most 40 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    )
}

fn check_source(hub: &HuggingFace) -> Result<(), Violation> {
    let HuggingFace {
        repo,
        revision,
        path,
        endpoint,
        token_secret_ref,
    } = hub;
    let repo_ok = repo.len() <= 128
        && repo
            .split_once('/')
            .is_some_and(|(owner, name)| is_component(owner, 128) && is_component(name, 128));
    ensure(
        "spec.source.huggingFace.repo",
        repo_ok,
        "must be owner/name",
    )?;
    ensure(
        "spec.source.huggingFace.revision",
        is_path(revision, 128),
        "must be a branch, tag or commit without '..'",
    )?;
    if let Some(path) = path {
        ensure(
            "spec.source.huggingFace.path",
            is_path(path, 253),
            "must be a relative path without '..'",
        )?;
    }
    if let Some(endpoint) = endpoint {
        ensure(
            "spec.source.huggingFace.endpoint",
            is_endpoint(endpoint),
            "must be an http or https URL without user, query or fragment",
        )?;
    }
    check_secret(
        "spec.source.huggingFace.tokenSecretRef",
        token_secret_ref.as_ref(),
    )
}

fn check_volume(volume: &FilledVolume) -> Result<(), Violation> {
    let FilledVolume { claim_name, path } = volume;
    ensure(
        "spec.source.pvc.claimName",
        is_subdomain(claim_name),
        "must be the name of a PersistentVolumeClaim",
    )?;
    ensure(
        "spec.source.pvc.path",
        path.as_deref().is_none_or(|path| is_path(path, 200)),
        "must be a relative path without '..'",
    )
}

fn check_secret(field: &'static str, secret: Option<&SecretKeyRef>) -> Result<(), Violation> {
    let Some(SecretKeyRef { name, key }) = secret else {
        return Ok(());
    };
    ensure(
        field,
        is_subdomain(name) && dotted(key, 253),
        "must give the name of a Secret and a key in it",
    )
}

fn check_quantity(field: &'static str, text: Option<&str>) -> Result<(), Violation> {
    let Some(text) = text else { return Ok(()) };
    // The schema's pattern is narrower than Kubernetes' grammar: no sign, no exponent, no fraction of a byte.
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let plain = text.len() <= 24
        && number.split('.').count() <= 2
        && number.split('.').all(digits)
        && ["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"].contains(&suffix);
    ensure(
        field,
        plain && parse_quantity(text).is_some(),
        "must be a quantity of bytes such as 96Gi",
    )
}

/// Letters, digits, `_`, `-`, and dots between them.
pub(crate) fn dotted(text: &str, max: usize) -> bool {
    text.len() <= max
        && text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
        })
}

fn is_component(text: &str, max: usize) -> bool {
    dotted(text, max) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_path(text: &str, max: usize) -> bool {
    text.len() <= max && text.split('/').all(|part| dotted(part, max))
}

pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        })
}

pub(crate) fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return false;
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority
        .split_once(':')
        .map_or((authority, None), |(host, port)| (host, Some(port)));
    text.len() <= 253
        && !host.is_empty()
        && host
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'-')
        && port.is_none_or(|port| {
            (1..=5).contains(&port.len()) && port.bytes().all(|c| c.is_ascii_digit())
        })
        && (path.is_empty()
            || path
                .strip_suffix('/')
                .unwrap_or(path)
                .split('/')
                .all(|part| {
                    !part.is_empty()
                        && part.bytes().all(|c| {
                            c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'~' | b'-')
                        })
                }))
}

pub(crate) fn ensure(field: &'static str, holds: bool, message: &str) -> Result<(), Violation> {
    if holds { Ok(()) } else { fail(field, message) }
}

fn fail(field: &'static str, message: &str) -> Result<(), Violation> {
    Err(Violation {
        field,
        message: message.to_owned(),
    })
}

/// The code and the schema's pattern agree on each word.
#[cfg(test)]
#[track_caller]
pub(crate) fn agree(pattern: &str, code: impl Fn(&str) -> bool, words: &[&str]) {
    let Ok(pattern) = regex_lite::Regex::new(pattern) else {
        return assert!(pattern.is_empty(), "{pattern} is no pattern");
    };
    for word in words {
        assert_eq!(
            code(word),
            pattern.is_match(word),
            "'{word}' against {}",
            pattern.as_str()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn code_and_schema_agree() {
        let words = [
            "",
            "a",
            "A-1_b.c",
            "UD-Q2_K_XL",
            "a..b",
            ".a",
            "a.",
            "-a",
            "_a",
            "a/b",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/../b",
            "a b",
            "a\u{e9}",
            "refs/pr/1",
            "a.b/c.d",
            "0",
            "a-",
            "a_",
            "A",
        ];
        agree(schema::COMPONENT, |word| is_component(word, 63), &words);
        agree(schema::PATH, |word| is_path(word, 253), &words);
        agree(schema::DATA_KEY, |word| dotted(word, 253), &words);
        agree(schema::SUBDOMAIN, is_subdomain, &words);
        let urls = [
            "https://h",
            "http://h:80",
            "https://h/",
            "https://h/a/b",
            "https://h/a/b/",
            "https://h//",
            "https://h/a//b",
            "ftp://h",
            "https://",
            "https://u:p@h",
            "https://h:",
            "https://h:123456",
            "https://h?x",
            "https://h/a?x",
            "https://h/#a",
            "HTTPS://h",
            "https://h h",
            "http://hub.hub.svc.cluster.local:8088",
        ];
        agree(schema::ENDPOINT, is_endpoint, &urls);
        let quantities = [
            "96Gi", "1.5Gi", "0", "1", "", ".5", "5.", "1.2.3", "1e3", "1E", "1Ei", "1m", "-1",
            "+1", "1 Gi", "Gi", "1gi", "1KI", "1Ki", "1k",
        ];
        agree(
            schema::QUANTITY,
            |word| check_quantity("f", Some(word)).is_ok(),
            &quantities,
        );
        let repo = |word: &str| {
            let hub = HuggingFace {
                repo: word.to_owned(),
                revision: "main".to_owned(),
                path: None,
                endpoint: None,
                token_secret_ref: None,
            };
            check_source(&hub).is_ok()
        };
        agree(
            schema::REPO,
            repo,
            &[
                "a/b",
                "a",
                "a/b/c",
                "/b",
                "a/",
                "a.b/c.d",
                "a../b",
                "a/-b",
                "unsloth/Kimi-K2-Instruct-GGUF",
            ],
        );
    }
}
