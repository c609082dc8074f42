# The server, as one binary in a bare Debian. Works with BuildKit and with the classic builder.

# The bill of materials, where one is asked for, lists the crates of Cargo.lock, too: the binary itself names none.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# Debian's release is named twice, here and below, and has to be the same: the binary links to its C library.
# The compiler runs on the machine that builds, whatever the image is for: nothing is emulated. The classic builder
# knows no BUILDPLATFORM, and builds for its own machine.
FROM --platform=${BUILDPLATFORM:-linux} rust:1.95-slim-bookworm AS builder

# The linker of the machine's own architecture is part of the image under its long name, too.
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
# Line tables are for profilers, which look at a build of their own.
ENV CARGO_PROFILE_RELEASE_DEBUG=false
ARG TARGETARCH
RUN own=$(dpkg --print-architecture) \
 && case "${TARGETARCH:-$own}" in \
      amd64) machine=x86_64 tools="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
      arm64) machine=aarch64 tools="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
      *) echo "no image for ${TARGETARCH:-$own}: amd64 and arm64 are known" >&2; exit 1 ;; \
    esac \
 && echo "$machine-unknown-linux-gnu" > /target \
 && if [ "${TARGETARCH:-$own}" != "$own" ]; then \
      apt-get update && apt-get install -y --no-install-recommends $tools && rm -rf /var/lib/apt/lists/* \
      && rustup target add $machine-unknown-linux-gnu; \
    fi

WORKDIR /build

# First the dependencies alone, in a layer that only a changed manifest or lock file builds again. (A cache mount would
# need BuildKit, and would be lost with the machine's build cache; a layer can be pulled.)
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY benches/Cargo.toml benches/
COPY docs/learn/Cargo.toml docs/learn/
COPY proto-pg/Cargo.toml proto-pg/
COPY stress/Cargo.toml stress/
COPY stress/peers/Cargo.toml stress/peers/
# Each member is an empty library for now; `//!` because the lints refuse a crate without documentation.
# The stubs of the benches, of `learn` and below `stress` stay for good: they are never compiled here, but without them the
# workspace does not load.
RUN mkdir src benches/src docs/learn/src proto-pg/src stress/src stress/peers/src \
 && for root in src/lib.rs benches/src/lib.rs docs/learn/src/lib.rs proto-pg/src/lib.rs stress/src/lib.rs \
        stress/peers/src/lib.rs; do \
      echo '//! Stub.' > "$root"; \
    done \
 && printf '//! Stub.\nfn main() {}\n' > src/main.rs \
 && cargo build --release --locked --bin rinha --target "$(cat /target)" \
 && rm -r src proto-pg/src

COPY proto-pg/src proto-pg/src
COPY src src
# Cargo compares times, and the sources may be older than what was built of the stubs.
RUN touch src/*.rs proto-pg/src/*.rs \
 && cargo build --release --locked --bin rinha --target "$(cat /target)" \
 && install -D target/*/release/rinha /image/usr/local/bin/rinha \
 && install -d /image/run/rinha

# Nothing runs in this stage: it is for the machine that the image is for.
FROM debian:bookworm-slim

# Where the Unix sockets go. A volume mounted here for the first time takes over this owner.
COPY --from=builder --chown=10001:10001 /image/run/rinha /run/rinha

# Owned by root: the server cannot change its own binary.
COPY --from=builder /image/usr/local/bin/rinha /usr/local/bin/rinha

# By number, so that "runs as non-root" can be checked without reading the image; 10001 is nobody on usual hosts.
USER 10001:10001

# The API, and the metrics if METRICS_LISTEN says so.
EXPOSE 8080 9090
ENV LISTEN=0.0.0.0:8080

# The exec form: the server is process 1, gets SIGTERM itself and drains.
ENTRYPOINT ["/usr/local/bin/rinha"]

# Last, since a new revision must not invalidate anything above.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rinha" \
      org.opencontainers.image.description="The bank of the Rinha de Backend 2024/Q1 on one hand-written event loop" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}"
