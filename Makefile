# One word per job. `make test` is all that CI runs; `make demo` runs the main job from nothing.

KIMI_CACHE ?= $(HOME)/.cache/kimi-operator
# Build outputs stay out of the repository, and one cache serves every checkout.
export CARGO_TARGET_DIR ?= $(KIMI_CACHE)/target
export KIMI_CACHE
IMAGES := $(KIMI_CACHE)/images
export KIMI_IMAGES := $(IMAGES)/kimi-operator.tar $(IMAGES)/kimi-worker.tar

.PHONY: test test-unit test-long lint e2e demo run deps images gen clean

test: deps lint test-unit e2e

# Debian packages, where some are missing. The cluster binary and the Python clients are made where they are used.
deps:
	e2e/cluster/deps.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test-unit:
	KIMI_REQUIRE_CLIENTS=1 cargo test --workspace --locked

images:
	cargo build --release --locked -p kimi-operator -p worker -p testhub
	e2e/images.sh release

# Scenarios on a real control plane: ours in private namespaces, or the user's when KUBECONFIG is set.
e2e: deps images
	cargo test --workspace --locked --no-run --test spine --test transitions --test cluster
	e2e/cluster/selftest.sh
	e2e/cluster/with-cluster.sh e2e/scenarios.sh
	e2e/proofs.sh

# Hours: every crash point, a hundred kills, a thousand models, ten million hostile inputs. Interrupted, it goes on where
# it was; docs/reliability.md and docs/fidelity.md have its results.
test-long: deps images
	cargo test -p kimi-operator -p fetch --locked --no-run
	e2e/long.sh

demo: deps images
	cargo build -p e2e --locked --bin demo
	e2e/cluster/with-cluster.sh $(CARGO_TARGET_DIR)/debug/demo

# The same model without a cluster: the stand-in hub and `kimi run` as local processes.
run:
	cargo build --release --locked -p worker -p testhub
	e2e/run-local.sh

# Rewrites every generated file (CRD, manifests, chart pieces, docs tables, goldens); tests compare them.
gen:
	UPDATE_GOLDEN=1 cargo test --workspace --locked

clean:
	rm -rf "$(CARGO_TARGET_DIR)" "$(IMAGES)"
