#!/bin/sh
# Makes testdata/shapes/*.json anew: random-weight models in the shapes of Moonlight, Kimi-VL, Kimi-K2.5 and of legacy
# files, evaluated by llama.cpp. PYTHON names an interpreter with the packages that llama_logits.py asks for.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
KIMI_SHAPES=$dir cargo test --locked -p engine writes_the_shapes -- --ignored
mkdir -p testdata/shapes
for model in "$dir"/*.gguf; do
    "${PYTHON:-python3}" bench/llama_logits.py "$model" "$dir/request.json" \
        "testdata/shapes/$(basename "$model" .gguf).json"
done
