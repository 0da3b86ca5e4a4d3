# The operator as one static binary in an empty image. The build stage runs on the builder's own architecture and
# cross-compiles. For both architectures, with what the labels tell:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.2.0 \
#     --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=https://GIT/pki-operator --tag REGISTRY/pki-operator:0.2.0 --push .
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-slim-bookworm AS build
ARG TARGETARCH

# Debian and Go call the architectures alike (amd64, arm64), Rust and GCC do not.
RUN set -eux; \
    native=$(dpkg --print-architecture); \
    arch=${TARGETARCH:-$native}; \
    case "$arch" in \
        amd64) target=x86_64-unknown-linux-gnu gcc=gcc-x86-64-linux-gnu ;; \
        arm64) target=aarch64-unknown-linux-gnu gcc=gcc-aarch64-linux-gnu ;; \
        *) echo "cannot build for $arch, only for amd64 and arm64" >&2; exit 1 ;; \
    esac; \
    echo "$target" > /target; \
    if [ "$arch" != "$native" ]; then \
        rustup target add "$target"; \
        apt-get update; \
        apt-get install --yes --no-install-recommends "$gcc" "libc6-dev-$arch-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi

# With --target given, RUSTFLAGS apply to the operator alone, not to build scripts and macros.
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    RUSTFLAGS="-C target-feature=+crt-static"

WORKDIR /source
# First the dependencies alone, around empty crates: this layer stays until a manifest changes. (The manifest's tests and
# benches are left out, as is what they need.)
COPY Cargo.toml Cargo.lock ./
COPY certs/Cargo.toml certs/
COPY tests/bench/Cargo.toml tests/bench/
COPY tests/cluster/Cargo.toml tests/cluster/
RUN set -eux; \
    sed -i '/^\[\[/,/^$/d' Cargo.toml; \
    mkdir -p src certs/src tests/bench/src tests/cluster/src/bin; \
    touch src/lib.rs certs/src/lib.rs tests/cluster/src/lib.rs; \
    echo 'fn main() {}' | tee src/main.rs tests/bench/src/main.rs > tests/cluster/src/bin/cluster.rs; \
    cargo build --release --locked --package pki-operator --bin pki-operator --target "$(cat /target)"

COPY certs/src certs/src
COPY src src
# Cargo goes by times, and these files are older than the empty crates.
RUN set -eux; \
    find src certs -name '*.rs' -exec touch {} +; \
    target=$(cat /target); \
    cargo build --release --locked --package pki-operator --bin pki-operator --target "$target"; \
    cp "target/$target/release/pki-operator" /pki-operator

FROM scratch
ARG VERSION=unreleased
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="pki-operator" \
      org.opencontainers.image.description="Certificates for application teams on Kubernetes, with errors they can read" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=build /pki-operator /pki-operator
# What is large is soon over: pages of lists and of metrics. Else glibc keeps the room for the largest that it saw (mallopt(3)).
ENV MALLOC_MMAP_THRESHOLD_=131072
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/pki-operator"]
