#!/usr/bin/env bash
# What needs an API server and no node: lives with faults in them, many models. The control plane is our own, whatever
# KUBECONFIG says: the tests play the node, and a user's cluster has one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -n "${KUBECONFIG:-}" ]]; then
    echo "skipped: with KUBECONFIG set, no control plane of our own is started"
    exit
fi
export KIMI_CLUSTER=control-plane KIMI_TEST_CLUSTER=1
e2e/cluster/with-cluster.sh cargo test --workspace --locked --offline --test cluster -- \
    --test-threads=1 --nocapture "$@"
