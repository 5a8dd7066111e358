#!/usr/bin/env bash
# The third way in, without a cluster: the hub stand-in and `kimi run` on this machine. With the public hub, leave the
# stand-in out: `kimi run -f examples/kimi-k2-t4.yaml`.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${CARGO_TARGET_DIR:-target}/release"
"$bin/testhub" --root testdata/hub --listen 127.0.0.1:8088 --public-url http://127.0.0.1:8088 \
  --cdn-listen 127.0.0.1:8089 --cdn-url http://127.0.0.1:8089 >/dev/null &
hub=$!
trap 'kill "$hub" 2>/dev/null || true' EXIT
echo 'Ask with: curl -s http://127.0.0.1:8080/v1/chat/completions -d '"'"'{"messages":[{"role":"user","content":"Who built the ark?"}]}'"'"
"$bin/kimi" run -f examples/kimi-tiny.yaml --endpoint http://127.0.0.1:8088 "$@"
