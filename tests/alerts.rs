//! The alerts that the chart ships speak of metrics that the operator has: every name in an expression is one that
//! `/metrics` shows, with labels that it has. Knows text and no Prometheus.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use kimi_operator::telemetry::{ModelCounts, Telemetry};
use serde_yaml::Value;

/// Everything that the metrics hold once each label was used.
fn exposition() -> String {
    let telemetry = Telemetry::new();
    let metrics = telemetry.metrics();
    metrics.reconciled(Some("apply"), Duration::ZERO);
    let conditions = ["Ready", "Stalled", "MemoryFits"]
        .into_iter()
        .flat_map(|kind| [((kind, "True"), 0), ((kind, "False"), 0)])
        .collect();
    metrics.models(&ModelCounts {
        conditions,
        downloading: 0,
    });
    telemetry.encode().unwrap()
}

#[test]
fn every_alert_speaks_of_metrics_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/kimi-operator/files/alerts.yaml");
    let rules: Vec<Value> = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let metrics = exposition();
    assert!(!rules.is_empty());
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let expression = rule["expr"].as_str().unwrap();
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].is_string(),
                "{name}: no {annotation}"
            );
        }
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: Vec<&str> = words.filter(|word| word.starts_with("kimi_")).collect();
        assert!(!used.is_empty(), "{name}: {expression}");
        for metric in used {
            let has = |end: char| metrics.contains(&format!("\n{metric}{end}"));
            assert!(
                has(' ') || has('{'),
                "{name}: no metric {metric} in\n{metrics}"
            );
        }
        if let Some((_, selector)) = expression.split_once('{') {
            let selector = selector.split_once('}').unwrap().0;
            assert!(
                metrics.contains(selector),
                "{name}: no series with {selector}"
            );
        }
    }
}
