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
step transitions e2e/cluster/with-cluster.sh \
    cargo test --workspace --locked --test transitions -- --test-threads=1 --nocapture
step upgrade e2e/upgrade.sh

# Bars of docs/fidelity.md. llama-quantize's files are not in the repository: KIMI_FIXTURES names the folder they are in.
if [[ -n "${KIMI_FIXTURES:-}" ]]; then
    step types cargo test -p engine --locked --lib in_every_quant -- --ignored --nocapture
    step closeness cargo test -p engine --locked --lib every_type_is_as_close -- --ignored --nocapture
else
    echo "not run: llama-quantize's files in every type, since KIMI_FIXTURES is not set"
fi
step storm cargo test -p worker --locked --test storm a_storm_of_rude_clients -- --ignored --nocapture
# Ten million in all.
for target in header:3000000 model:400000 safetensors:3000000 tokenizer:2000000 template:600000 body:1000000; do
    step "fuzz-${target%:*}" env KIMI_FUZZ="${target#*:}" cargo test -p fuzz --profile fuzz --locked --test inputs "${target%:*}" -- --nocapture
done

echo
grep -hE '^(campaign:|kills survived:|[a-z, ]+ survived: |writes that did not|apply to Job:|[0-9]+ models|operator.s RSS|writes in |.* of llama.cpp.s(;.*)?$|storm: |fuzz )|(one GPU|bad models|deaths of the operator|least memory|helm upgrade and new engine):? ' \
    "$KIMI_LONG"/*.log
