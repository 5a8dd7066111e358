#!/usr/bin/env bash
# upgrade.sh: makes the first chart and its two images from the commit that they landed with, and upgrades a cluster
# with a served model from them to this checkout's. Needs the images of this checkout (make images) and the history.
set -euo pipefail
cd "$(dirname "$0")/.."
first=ec61717d
cache=${KIMI_CACHE:-$HOME/.cache/kimi-operator}
tree=$cache/first/tree
if ! git cat-file -e "$first^{commit}" 2>/dev/null; then
    echo "skipped: this clone does not reach back to $first, where the first chart landed"
    exit
fi
if [[ ! -e $cache/first/images/kimi-worker.tar ]]; then
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive "$first" | tar -x -C "$tree"
    sed -i 's/:dev$/:first/' "$tree/e2e/images.sh"
    (
        export KIMI_CACHE=$cache/first CARGO_TARGET_DIR=$cache/first/target
        cd "$tree"
        cargo build --release --locked -p kimi-operator -p worker
        e2e/images.sh release
    )
    rm -rf "$cache/first/target"
fi
export KIMI_IMAGES="$KIMI_IMAGES $cache/first/images/kimi-operator.tar $cache/first/images/kimi-worker.tar"
export KIMI_FIRST_CHART=$tree/charts/kimi-operator
e2e/cluster/with-cluster.sh cargo test --workspace --locked --offline --test upgrade -- --nocapture
