#!/usr/bin/env bash
# Runs the scenarios one at a time: they share one cluster and two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test -p e2e --locked --offline -- --test-threads=1 --nocapture
