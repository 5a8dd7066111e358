#!/bin/sh
# Installs what the tests and the local cluster need from Debian. Go and Rust are the reader's own.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
need() { # need PACKAGE COMMAND-OR-FILE
    command -v "$2" >/dev/null || [ -e "$2" ] || missing="$missing $1"
}
need containerd containerd
need runc runc
need iptables iptables
need conntrack conntrack
need iproute2 ip
need buildah buildah
need binutils strip
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need curl curl
need procps pgrep
# The hub's own client judges the hub stand-in, from a virtual environment.
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
[ -x /opt/cni/bin/bridge ] || need containernetworking-plugins /usr/lib/cni/bridge

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing:$missing. As root on Debian or Ubuntu: apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # The daemons of the packages must not start: the cluster runs its own, and a container has no init for them.
    printf '#!/bin/sh\nexit 101\n' >/tmp/policy-rc.d.$$
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        install -m 755 /tmp/policy-rc.d.$$ /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    rm -f /tmp/policy-rc.d.$$
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # one argument per package
    apt-get install -y -qq --no-install-recommends $missing >&2
fi

if ! command -v go >/dev/null; then
    echo "missing: go (1.24 or newer, https://go.dev/dl), to build Kubernetes from its Go modules" >&2
    exit 1
fi
