#!/bin/sh
# with-cluster.sh COMMAND ARGUMENTS...: runs the command with KUBECONFIG naming a Kubernetes cluster.
#
# Where KUBECONFIG is set already that is the whole work. Otherwise a cluster of one node starts in private
# namespaces, the command runs inside them, and when it ends (or anything is killed) nothing is left.
#   KIMI_IMAGES        archives (oci or docker tar files, separated by spaces) to load into the node
#   KIMI_CLUSTER       `control-plane`: the API server and its controllers alone, with no node, scheduler or images
#   KIMI_CLUSTER_LOGS  a directory to keep the components' logs in
# The command also gets KIMI_NODE_IP (the node's address, which pods reach) and a PATH with kubectl and helm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ -z "${KUBECONFIG:-}" ] || exec "$@"
"$here/deps.sh"
bin=$("$here/build.sh")
export KIMI_IMAGES="$bin/pause.tar ${KIMI_IMAGES:-}"
export PATH="$bin:$PATH:/usr/sbin:/sbin"
exec cluster up "$@"
