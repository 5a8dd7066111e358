//! Lives that turn on where the quant is written and on which volumes stay. What happens in between is the parent's.

use super::{LONG, active_quant, cluster, serving};
use crate::controller::plan::{Reason, Step};
use crate::snapshot::ConfigValue;
use crate::testing::cluster::Cluster;

/// The minimal model with its quant in a ConfigMap.
fn pointing(config: ConfigValue) -> Cluster {
    let mut cluster = cluster(
        "{quantFrom: {configMapKeyRef: {name: llamacpp-config, key: QUANT_TYPE}}, hardware: CPU, \
         source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}}}",
    );
    cluster.config = config;
    cluster
}

fn text(quant: &str) -> ConfigValue {
    ConfigValue::Text(quant.to_owned())
}

#[test]
fn an_edit_of_the_config_map_is_an_edit_of_the_quant() {
    let mut cluster = pointing(text("Q4_K_M\n"));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.essence(), serving("Q4_K_M").essence());
    cluster.config = text("Q5_0");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q5_0"), 0)
    );
}

#[test]
fn a_config_map_that_says_nothing_stops_nothing_and_heals() {
    let mut cluster = pointing(ConfigValue::NoConfigMap);
    let decision = cluster.settle(5);
    assert_eq!(decision.reason, Reason::QuantSourceMissing);
    assert!(cluster.jobs.is_empty() && cluster.claims.is_empty());
    cluster.config = text("Q4_K_M");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let gone = ConfigValue::NoKey {
        has: vec!["QUANT".to_owned()],
    };
    for (config, reason, words) in [
        (
            gone,
            "QuantSourceMissing",
            "no key QUANT_TYPE; it has QUANT",
        ),
        (text("../Q5"), "InvalidSpec", "has '../Q5' in QUANT_TYPE"),
        (text(""), "InvalidSpec", "must be a name"),
        (
            text("auto"),
            "InvalidSpec",
            "auto chooses from the catalogue",
        ),
    ] {
        cluster.config = config;
        let decision = cluster.settle(5);
        assert_eq!(decision.reason.as_str(), reason, "{}", decision.message);
        assert!(decision.message.contains(words), "{}", decision.message);
        assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    }
    cluster.config = text("Q4_K_M");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.dark, 0);
}
