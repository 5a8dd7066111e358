#!/bin/bash
# images.sh [release|debug]: makes both images, offline, from binaries that cargo has built, and prints their sizes.
# The archives go to ${KIMI_CACHE:-~/.cache/kimi-operator}/images/; with-cluster.sh loads those named in KIMI_IMAGES.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
target=${CARGO_TARGET_DIR:-target}/$profile
out=${KIMI_CACHE:-$HOME/.cache/kimi-operator}/images
mkdir -p "$out"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# The Dockerfile's own runtime stages, with a directory in the place of its builder stage.
image() { # image TARGET BINARY
    local name=docker.io/local/kimi-$1:dev
    local flags=(--storage-driver vfs --root "$context/storage-$1" --runroot "$context/run-$1")
    images/rootfs.sh "$target/$2" "$context/rootfs/$1"
    buildah "${flags[@]}" build --quiet --isolation chroot --target "$1" --build-context builder="$context" \
        --tag "$name" . >/dev/null
    rm -f "$out/kimi-$1.tar"
    buildah "${flags[@]}" push --quiet "$name" "oci-archive:$out/kimi-$1.tar:$name"
    printf '%-28s %8s unpacked %8s archive   %s\n' "$name" "$(du -sh --apparent-size "$context/rootfs/$1" | cut -f1)" \
        "$(du -h --apparent-size "$out/kimi-$1.tar" | cut -f1)" "$out/kimi-$1.tar"
}

image operator kimi-operator &
image worker kimi &
wait -n
wait -n
