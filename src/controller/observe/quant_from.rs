//! Reads the one key of the one ConfigMap that `spec.quantFrom` names. Asked for at each look instead of watched: the
//! operator then needs `get` alone, and neither lists nor remembers ConfigMaps that are no business of its.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use spec::ConfigMapKeyRef;

use super::Error;
use crate::snapshot::ConfigValue;

/// Keys named in a message about the one that is missing.
const MAX_KEYS: usize = 8;

/// What stands under `reference` in `namespace`.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    reference: &ConfigMapKeyRef,
) -> Result<ConfigValue, Error> {
    let ConfigMapKeyRef { name, key } = reference;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|source| Error {
        kind: "ConfigMap",
        name: name.clone(),
        source: Box::new(source),
    })?;
    let Some(map) = found else {
        return Ok(ConfigValue::NoConfigMap);
    };
    let mut data = map.data.unwrap_or_default();
    Ok(match data.remove(key) {
        Some(text) => ConfigValue::Text(text),
        None => ConfigValue::NoKey {
            has: data.into_keys().take(MAX_KEYS).collect(),
        },
    })
}
