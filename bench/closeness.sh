#!/bin/sh
# Makes testdata/llama.cpp/*.json anew: $CHUNKS windows of held-out text (one) by this engine with activations in f32,
# and by llama.cpp, for each file in DIR (Kimi-Tiny-QUANT.gguf), with the $TOP likeliest tokens (32) at each position.
# PYTHON names an interpreter with the packages that llama_logits.py asks for.
#
#     bench/closeness.sh DIR
set -eu
cd "$(dirname "$0")/.."
for model in "$1"/Kimi-Tiny-*.gguf; do
    quant=$(basename "$model" .gguf)
    out=testdata/llama.cpp/${quant#Kimi-Tiny-}
    cargo run --quiet --release --locked -p worker --bin kimi -- eval -m "$model" -f testdata/heldout.txt \
        -c 192 --chunks "${CHUNKS:-1}" --every 8 --top "${TOP:-32}" --compat llama.cpp --save "$out-exact.json"
    "${PYTHON:-python3}" bench/llama_logits.py "$model" "$out-exact.json" "$out-llama.json"
done
