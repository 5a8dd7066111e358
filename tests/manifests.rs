//! The generated manifests are committed; `UPDATE_GOLDEN=1` rewrites them, and without it a difference fails. Knows
//! files and text only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use kimi_operator::manifests;

fn check(path: &str, wanted: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == wanted, "{path} is out of date: run `make gen`");
}

#[test]
fn drift_of_the_plain_manifests() {
    check(
        "manifests/base/install.yaml",
        &manifests::install().unwrap(),
    );
}

#[test]
fn drift_of_the_charts_pieces() {
    check(
        "charts/kimi-operator/files/clusterrole-rules.yaml",
        &manifests::rules().unwrap(),
    );
    check(
        "charts/kimi-operator/files/role-rules.yaml",
        &manifests::own_rules().unwrap(),
    );
    check(
        "charts/kimi-operator/files/aggregated-roles.yaml",
        &manifests::aggregated_roles().unwrap(),
    );
    check(
        "charts/kimi-operator/files/crd.yaml",
        &manifests::crd().unwrap(),
    );
}
