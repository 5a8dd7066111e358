#!/bin/bash
# chart.sh: checks the Helm chart against a real API server, with the images of e2e/images.sh in it. Run it through
# e2e/cluster/with-cluster.sh with both archives in KIMI_IMAGES.
set -euo pipefail
cd "$(dirname "$0")/.."
chart=charts/kimi-operator
set_images=(--set image.operator=docker.io/local/kimi-operator:dev --set image.worker=docker.io/local/kimi-worker:dev)

helm lint --strict --quiet "$chart"
if helm template bad "$chart" --set imagee.operator=typo >/dev/null 2>&1; then
    echo "chart: a value that does not exist was accepted" >&2
    exit 1
fi

kubectl create --save-config namespace llm >/dev/null
for values in "crds.install=true" "openshift=true" "watchNamespace=llm,metrics.service=true" \
    "crds.install=false,imagePullSecrets={pull},nodeSelector.disk=fast,forbidPodFields={tolerations,affinity}" \
    "replicas=2,aggregatedRoles=false"; do
    # Without the test pod: its service account is not there yet.
    helm template kimi-operator "$chart" --namespace default --skip-tests --set "$values" |
        kubectl apply --dry-run=server -f - >/dev/null
    echo "ok  the API server accepts $values"
done

# The namespace that the chart is installed in is as strict as the models' own.
kubectl create --save-config namespace kimi-system >/dev/null
kubectl label namespace kimi-system pod-security.kubernetes.io/enforce=restricted >/dev/null
accepts() { # accepts DIRECTORY...: the API server would take each kustomization
    local directory
    for directory; do
        kubectl kustomize "$directory" | kubectl apply --dry-run=server -f - >/dev/null
        echo "ok  the API server accepts $directory"
    done
}
accepts manifests/base manifests/overlays/*
for values in "securityContext.runAsUser=1000680000,securityContext.fsGroup=1000680000" "watchNamespace=llm,metrics.service=true"; do
    helm upgrade --install kimi-operator "$chart" --namespace kimi-system --wait --timeout 60s "${set_images[@]}" \
        --set "$values" >/dev/null || {
        kubectl -n kimi-system get pods,events
        kubectl -n kimi-system logs deployment/kimi-operator --tail=50
        exit 1
    }
    kubectl -n kimi-system rollout status deployment/kimi-operator --timeout=60s >/dev/null
    echo "ok  installed and Ready with $values"
    sleep 3 # a permission that is missing shows in the first lists, not in readiness
    if kubectl -n kimi-system logs deployment/kimi-operator | grep -i 'forbidden'; then
        echo "chart: the operator lacks a permission" >&2
        exit 1
    fi
done
# With the CustomResourceDefinition there.
accepts manifests/models/*
helm test kimi-operator --namespace kimi-system --timeout 120s >/dev/null || {
    kubectl -n kimi-system describe pod kimi-operator-test
    exit 1
}
echo "ok  helm test: KimiModels are served and an operator leads"

# v1alpha1 grows by additions: every example that was ever committed, and applying it again changes nothing.
suspended=$(mktemp -d)
for example in tests/history/*.yaml; do
    # Suspended, so that applying them starts no download.
    awk '/^---/ {model = 0} /^kind: KimiModel$/ {model = 1} {print} /^spec:$/ && model {print "  suspend: true"}' \
        "$example" >"$suspended/$(basename "$example")"
    kubectl apply --server-side --validate=strict -f "$suspended/$(basename "$example")" >/dev/null
    # The operator writes finalizers and status meanwhile, and the two reads of a diff may lie on both sides of a write:
    # such a difference goes away, one that a second apply makes stays.
    for _ in $(seq 5); do
        difference=$(kubectl diff --server-side -f "$suspended/$(basename "$example")" 2>&1) && continue 2
        sleep 1
    done
    echo "chart: a second apply of $example would change something: $difference" >&2
    exit 1
done
echo "ok  $(ls tests/history | wc -l) examples of earlier commits apply, and a second apply is no change"
kubectl delete kimimodels --all-namespaces --all --wait=false >/dev/null
rm -r "$suspended"

metrics=$(kubectl get --raw /api/v1/namespaces/kimi-system/services/kimi-operator-metrics:http/proxy/metrics)
echo "ok  the metrics Service answers with $(grep -c '^# TYPE' <<<"$metrics") metrics"

node=$(kubectl -n kimi-system get pods -o jsonpath='{.items[0].spec.nodeName}')
for _ in $(seq 30); do # the kubelet measures every ten seconds
    memory=$(kubectl get --raw "/api/v1/nodes/$node/proxy/metrics/resource" |
        sed -n 's/^container_memory_working_set_bytes{container="operator".* \([0-9.e+]*\) [0-9]*$/\1/p' | tail -1)
    [[ -z "$memory" ]] || break
    sleep 1
done
echo "ok  the operator's memory at rest: working set $(awk -v b="$memory" 'BEGIN {printf "%.1f MiB", b / 1048576}')"
# Where the node is this machine, the process itself shows: pages of the binary count too.
if rss=$(ps -C kimi-operator -o rss=); then
    echo "ok  the operator's memory at rest: RSS $(awk -v k="$rss" 'BEGIN {printf "%.1f MiB", k / 1024}')"
fi
helm uninstall kimi-operator --namespace kimi-system --wait >/dev/null 2>&1
kubectl get crd kimimodels.kimioperator.dev >/dev/null
echo "ok  uninstalling keeps the CustomResourceDefinition"
