//! Patterns and transforms shared by the spec's schema. It must know no values; `check` holds the same patterns
//! as code for readers without an API server.

use schemars::Schema;
use serde_json::Value;

/// One name without a slash: dots only between other characters, so never `..`.
pub(crate) const COMPONENT: &str = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$";
/// Components joined by slashes.
pub(crate) const PATH: &str =
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)*$";
/// owner/name.
pub(crate) const REPO: &str =
    r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$";
/// A plain http(s) base URL: no user, no query, so no credential can stand in a spec.
pub(crate) const ENDPOINT: &str = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$";
/// A positive quantity of bytes.
pub(crate) const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
/// RFC 1123 subdomain.
pub(crate) const SUBDOMAIN: &str =
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
/// Key of a Secret or ConfigMap; `..` would climb out of the mount.
pub(crate) const DATA_KEY: &str = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$";

/// Value of a label.
pub(crate) const LABEL_VALUE: &str = r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$";
/// Key of a label, annotation or taint, and name of a resource.
pub(crate) const QUALIFIED: &str = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$";
/// A positive quantity of anything.
pub(crate) const AMOUNT: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
/// Hosts, domains and networks between commas.
pub(crate) const NO_PROXY: &str = r"^[A-Za-z0-9.,:/*-]+$";

/// Rewrites `Option<T>` properties from "T or null" to "T": the API server then drops an explicit null before
/// defaulting, and `has()` in a rule means what it says.
pub fn optional_means_absent(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for property in properties.values_mut() {
        let Some(property) = property.as_object_mut() else {
            continue;
        };
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                property.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = property.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if choices.len() == 1
                && let Some(Value::Object(only)) = choices.pop()
            {
                property.remove("anyOf");
                for (key, value) in only {
                    // The property's own description outranks its type's.
                    property.entry(key).or_insert(value);
                }
            }
        }
    }
}
