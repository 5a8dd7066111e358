#!/usr/bin/env bash
# long.sh: the proofs of which `make test` runs a sample, whole. Hours on two cores. What is done is kept under
# $KIMI_CACHE/long/COMMIT and not done again: after an interruption the same command goes on. Prints all results last.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git describe --always --dirty)
export KIMI_LONG=${KIMI_CACHE:-$HOME/.cache/kimi-operator}/long/$commit
mkdir -p "$KIMI_LONG"
echo "results: $KIMI_LONG"

step() { # step NAME COMMAND...: once for each commit
    local name=$1
    shift
    if [[ ! -e "$KIMI_LONG/$name.log" ]]; then
        echo "== $name"
        "$@" 2>&1 | tee "$KIMI_LONG/$name.part"
        mv "$KIMI_LONG/$name.part" "$KIMI_LONG/$name.log"
    fi
}

step campaign cargo test -p kimi-operator --locked --lib campaign -- --nocapture
step kills env KIMI_KILLS=100 cargo test -p fetch --locked --test hub kills -- --nocapture
step crash e2e/proofs.sh crash
step scale env KIMI_OPERATOR_BIN="${CARGO_TARGET_DIR:-target}/release/kimi-operator" e2e/proofs.sh scale

echo
grep -hE '^(campaign:|kills survived:|[a-z, ]+ survived: |writes that did not|apply to Job:|[0-9]+ models|operator.s RSS|writes in )' \
    "$KIMI_LONG"/*.log
