#!/usr/bin/env bash
# Everything that needs a cluster, one after the other: they share it and two cores. Run it through
# e2e/cluster/with-cluster.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
# First: it leaves the CRD as Helm's, which the others then find and keep.
e2e/chart.sh
# The operator in the test's own process, against the API server alone; skipped where one is installed already.
# With the whole workspace each time, as where they were built: a package alone has other features of its dependencies.
KIMI_TEST_CLUSTER=1 cargo test --workspace --locked --offline --test cluster -- --test-threads=1
cargo test --workspace --locked --offline --test spine --test transitions -- --test-threads=1 --nocapture
