#!/bin/sh
# Builds the cluster's binary, kubectl, helm and the sandbox image once per version of their sources, and prints the
# directory that holds them. Cold this takes about six minutes of two cores; afterwards nothing.
set -eu
cd "$(dirname "$0")"
sources=$(find . -name '*.go' -not -path './selftest/*' -o -name 'go.*' -o -path './conf/*' -type f | LC_ALL=C sort)
# shellcheck disable=SC2086 # one argument per file
version=$(cat $sources build.sh | sha256sum | cut -c1-12)
cache=${KIMI_CACHE:-$HOME/.cache/kimi-operator}/bin
out=$cache/cluster-$version
mkdir -p "$cache"

if [ ! -d "$out" ]; then
    exec 9>"$cache/cluster.lock"
    flock 9 # two tests that start together build once
fi
if [ ! -d "$out" ]; then
    version_of() { go list -m -f '{{.Version}}' "$1"; }
    kubernetes=$(version_of k8s.io/kubernetes)
    echo "building Kubernetes $kubernetes and helm (once; about six minutes of two cores)" >&2
    find "$cache" -maxdepth 1 -name 'cluster-*' -mtime +7 -exec rm -rf {} +
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    export CGO_ENABLED=0
    # Without a version in them clients see v0.0.0-master and charts a Kubernetes of years ago, and both refuse.
    go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes" -o "$partial/cluster" .
    helm=helm.sh/helm/v3
    minor=$(echo "$kubernetes" | cut -d. -f2)
    go build -trimpath -o "$partial/helm" -ldflags "-s -w -X $helm/internal/version.version=$(version_of $helm) \
        -X $helm/pkg/chartutil.k8sVersionMajor=1 -X $helm/pkg/chartutil.k8sVersionMinor=$minor \
        -X $helm/pkg/lint/rules.k8sVersionMajor=1 -X $helm/pkg/lint/rules.k8sVersionMinor=$minor" $helm/cmd/helm
    go build -trimpath -ldflags "-s -w" -o "$partial/pause" ./pause
    ln -s cluster "$partial/kubectl"
    printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' |
        buildah build --quiet --isolation chroot --storage-driver vfs -t docker.io/local/pause:1 -f - "$partial" >/dev/null
    buildah push --quiet --storage-driver vfs docker.io/local/pause:1 "oci-archive:$partial/pause.tar:docker.io/local/pause:1"
    chmod 755 "$partial"
    mv "$partial" "$out"
fi
touch "$out" # what is in use is not old
echo "$out"
