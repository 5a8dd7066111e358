# Two images from one build:
#   docker build --target operator -t REGISTRY/kimi-operator .
#   docker build --target worker   -t REGISTRY/kimi-worker .
FROM docker.io/library/rust:1.95.0-bookworm AS builder
WORKDIR /src
# The image's own toolchain: rust-toolchain.toml also asks for rustfmt and clippy, which no build needs.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package kimi-operator --package worker && \
    images/rootfs.sh target/release/kimi-operator /rootfs/operator && \
    images/rootfs.sh target/release/kimi /rootfs/worker

FROM scratch AS operator
COPY --from=builder /rootfs/operator/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/kimi-operator"]

FROM scratch AS worker
COPY --from=builder /rootfs/worker/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/kimi"]
