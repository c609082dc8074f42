# The server, as one binary in a bare Debian. Works with BuildKit and with the classic builder.

# Debian's release is named twice, here and below, and has to be the same: the binary links to its C library.
FROM rust:1.95-slim-bookworm AS builder
WORKDIR /build

# First the dependencies alone, in a layer that only a changed manifest or lock file builds again. (A cache mount would
# need BuildKit, and would be lost with the machine's build cache; a layer can be pulled.)
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY proto-pg/Cargo.toml proto-pg/
COPY stress/Cargo.toml stress/
# Each member is an empty library for now; `//!` because the lints refuse a crate without documentation.
# What was built of them is removed in the same layer: Cargo compares times, and the sources may be older than that.
# The stub of `stress` stays for good: it is compiled for tests only, but without it the workspace does not load.
RUN mkdir src proto-pg/src stress/src \
 && for root in src/lib.rs proto-pg/src/lib.rs stress/src/lib.rs; do echo '//! Stub.' > "$root"; done \
 && printf '//! Stub.\nfn main() {}\n' > src/main.rs \
 && cargo build --release --locked --bin rinha \
 && cargo clean --release --package rinha --package proto-pg \
 && rm -r src proto-pg/src

COPY proto-pg/src proto-pg/src
COPY src src
RUN cargo build --release --locked --bin rinha

FROM debian:bookworm-slim

# Where the Unix sockets go. A volume mounted here for the first time takes over this owner.
RUN install -d -o 10001 -g 10001 -m 0755 /run/rinha

# Owned by root: the server cannot change its own binary.
COPY --from=builder /build/target/release/rinha /usr/local/bin/rinha

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
