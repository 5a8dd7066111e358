//! Takes secrets out of objects and text: what is known to hold one goes whatever it says, what looks like one goes
//! wherever it stands. It must not know where the text came from.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

/// What stands in the place of a secret.
const REMOVED: &str = "[removed]";
/// Environment variables whose values are the operator's own and hold no secret.
const PLAIN_ENV: [&str; 6] = [
    "QUANT_TYPE",
    "KIMI_ARTIFACT",
    "RUST_LOG",
    "MALLOC_ARENA_MAX",
    "SSL_CERT_FILE",
    "NO_PROXY",
];
/// Text that is a secret or ends in one, and what is kept of it.
const PATTERNS: &[(&str, &str)] = &[
    // Hub tokens.
    (r"hf_[A-Za-z0-9]{8,}", REMOVED),
    // HTTP credentials.
    (
        r"(?i)(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}",
        "$1 [removed]",
    ),
    // JSON Web Tokens, such as those of service accounts.
    (
        r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
        REMOVED,
    ),
    // User and password of a URL.
    (r"://[^/\s:@]+:[^/\s@]+@", "://[removed]@"),
    // Signatures in query strings.
    (
        r"(?i)([?&][A-Za-z0-9_-]*(signature|credential|token|key|policy)[A-Za-z0-9_-]*=)[^&\s\x22]+",
        "$1[removed]",
    ),
    // Assignments: password=..., api_key: ..., "token": "...". A word that ends in file or ref names a place.
    (
        r"(?i)(password|passwd|secret|api[_-]?key|access[_-]?key|token)(\x22?\s*[=:]\s*\x22?)([^\s\x22,}]{6,})",
        "$1$2[removed]",
    ),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    PATTERNS
        .iter()
        .filter_map(|(pattern, kept)| Some((Regex::new(pattern).ok()?, *kept)))
        .collect()
});

/// Removes secrets from a text.
pub(super) fn scrub_text(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, kept) in COMPILED.iter() {
        if pattern.is_match(&text) {
            text = pattern.replace_all(&text, *kept).into_owned();
        }
    }
    text
}

/// Removes from an object what nobody needs and what may be a secret.
pub(super) fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => *text = scrub_text(text),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(map) => {
            map.remove("managedFields");
            // The object as applied: everything again, and as a string.
            map.remove("kubectl.kubernetes.io/last-applied-configuration");
            if let Some(Value::Array(variables)) = map.get_mut("env") {
                variables.iter_mut().for_each(scrub_variable);
            }
            map.values_mut().for_each(scrub);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn scrub_variable(variable: &mut Value) {
    let plain = variable["name"]
        .as_str()
        .is_some_and(|name| PLAIN_ENV.contains(&name));
    if let Some(value) = variable.get_mut("value").filter(|_| !plain) {
        *value = Value::String(REMOVED.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(COMPILED.len(), PATTERNS.len());
    }

    #[test]
    fn what_looks_like_a_secret_goes_and_the_rest_stays() {
        for (text, wanted) in [
            ("token hf_abcdefghijkl refused", "token [removed] refused"),
            (
                "Authorization: Bearer abc.def-123456",
                "Authorization: Bearer [removed]",
            ),
            (
                "http://user:pa55word@proxy:3128/x",
                "http://[removed]@proxy:3128/x",
            ),
            (
                "GET https://cdn/x?X-Amz-Signature=abcdef&y=1",
                "GET https://cdn/x?X-Amz-Signature=[removed]&y=1",
            ),
            ("password=hunter22 next", "password=[removed] next"),
            (
                "{\"api_key\": \"sk-123456\"}",
                "{\"api_key\": \"[removed]\"}",
            ),
            (
                "--token-file /secrets/hub/token",
                "--token-file /secrets/hub/token",
            ),
            ("1.5 tokens per second", "1.5 tokens per second"),
            (
                "sha256:0123456789abcdef0123456789abcdef",
                "sha256:0123456789abcdef0123456789abcdef",
            ),
        ] {
            assert_eq!(scrub_text(text), wanted);
        }
    }

    #[test]
    fn objects_lose_values_of_variables_and_copies_of_themselves() {
        let mut pod = json!({
            "metadata": {
                "managedFields": [{"manager": "x"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{all}", "kept": "yes"}
            },
            "spec": {"containers": [{"env": [
                {"name": "QUANT_TYPE", "value": "Q4_K_M"},
                {"name": "ANYTHING", "value": "hunter2"},
                {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}
        });
        scrub(&mut pod);
        assert_eq!(
            pod,
            json!({
                "metadata": {"annotations": {"kept": "yes"}},
                "spec": {"containers": [{"env": [
                    {"name": "QUANT_TYPE", "value": "Q4_K_M"},
                    {"name": "ANYTHING", "value": "[removed]"},
                    {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}
            })
        );
    }
}
