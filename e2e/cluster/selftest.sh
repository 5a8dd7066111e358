#!/bin/bash
# Checks the cluster itself: what pods of the operator rely on works, and nothing of it stays on the machine.
set -euo pipefail
cd "$(dirname "$0")"

expect() { # expect WHAT WANTED GOT
    [[ "$3" == *"$2"* && (-n "$2" || -z "$3") ]] || { echo "selftest: $1: wanted '$2', got '$3'" >&2; exit 1; }
    echo "ok  $1: $3"
}

# What the cluster that lived in directory $1 could leave behind, one thing a line.
traces() {
    local name=${1##*/}
    pgrep -fa "$name" || true
    grep -o "[^ ]*$name[^ ]*" /proc/mounts || true
    iptables-save 2>/dev/null | grep KUBE- || true
    ip -o link | grep -o 'node0\|pods0\|veth[^ ]*' || true
    find /sys/fs/cgroup -maxdepth 2 -name "$name"
    [[ ! -e "$1" ]] || echo "$1"
}

inside() {
    dirname "$KUBECONFIG" >"$1"
    # kube-proxy is told of endpoints after `rollout status` is
    ask="curl -sf --retry 10 --retry-delay 1 --retry-connrefused"
    kubectl apply -f selftest/pods.yaml >/dev/null
    kubectl -n selftest rollout status deployment/web --timeout=60s >/dev/null
    expect "two replicas" 2 "$(kubectl -n selftest get deployment web -o jsonpath='{.status.readyReplicas}')"
    expect "the volume is bound" Bound "$(kubectl -n selftest get pvc data -o jsonpath='{.status.phase}')"
    expect "an arbitrary user writes to it" "uid 1000680000 volume-gid 1000680000" "$($ask http://web.selftest.svc/write)"
    expect "a Service by name, from the node" web- "$($ask http://web.selftest.svc/name)"
    expect "a Service by name, from a pod" web- "$($ask 'http://web.selftest.svc/ask?host=web')"
    expect "kubectl logs" listening "$(kubectl -n selftest logs deployment/web 2>/dev/null)"
    expect "the root user is refused" violates "$(kubectl -n selftest run root --image=x 2>&1 || true)"
    curl -s http://web.selftest.svc/eat || true
    for _ in $(seq 50); do
        reasons=$(kubectl -n selftest get pods -o jsonpath='{.items[*].status.containerStatuses[*].lastState.terminated.reason}')
        [[ -z "$reasons" ]] || break
        sleep 0.2
    done
    expect "over the memory limit" OOMKilled "$reasons"
    helm version --short >/dev/null
}

if [[ "${1:-}" == inside ]]; then
    inside "$2"
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -o "$work/selftest" ./selftest
printf 'FROM scratch\nCOPY selftest /selftest\nENTRYPOINT ["/selftest"]\n' |
    buildah build --quiet --isolation chroot --storage-driver vfs -t docker.io/local/selftest:1 -f - "$work" >/dev/null
buildah push --quiet --storage-driver vfs docker.io/local/selftest:1 "oci-archive:$work/selftest.tar:docker.io/local/selftest:1"

unset KUBECONFIG
KIMI_IMAGES="$work/selftest.tar" ./with-cluster.sh ./selftest.sh inside "$work/dir"
expect "nothing is left" "" "$(traces "$(<"$work/dir")")"
expect "the command's exit status" 7 "$(./with-cluster.sh sh -c 'exit 7' 2>/dev/null || echo $?)"
for signal in INT TERM KILL; do
    rm "$work/dir"
    # shellcheck disable=SC2016 # the inner shell expands it
    ./with-cluster.sh sh -c 'dirname "$KUBECONFIG" >"$0"; sleep 600' "$work/dir" 2>/dev/null &
    until [[ -s "$work/dir" ]]; do sleep 0.2; done
    kill -s "$signal" $!
    wait $! 2>/dev/null || true
    for _ in $(seq 50); do
        left=$(traces "$(<"$work/dir")")
        [[ -n "$left" ]] || break
        sleep 0.2
    done
    [[ -z "$left" ]] || { echo "selftest: left after SIG$signal: $left" >&2; exit 1; }
    echo "ok  nothing is left after SIG$signal"
done
