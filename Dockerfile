# clamgate with freshclam, as an unprivileged user on a read-only root file system:
#
#   docker build --build-arg CLAMGATE_COMMIT="$(git rev-parse --short=12 HEAD)" -t clamgate .
#   docker run --read-only --tmpfs /tmp --volume definitions:/var/lib/clamav --stop-timeout 35 \
#     --env AWS_REGION --env CLAMGATE_QUEUE__URL clamgate
#
# More ways to run it: freshclam/README.md.

FROM rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends libclamav-dev libclang-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies take most of the time: build them once, with an empty program, until a manifest changes.
# Targets that Cargo.toml names are taken out, because their files are not here yet.
COPY Cargo.toml Cargo.lock build.rs ./
COPY clamav-sys clamav-sys
COPY src/engine/*.c src/engine/
RUN sed -i '/^\[\[\(bench\|example\|test\)\]\]$/,/^$/d' Cargo.toml \
 && touch src/lib.rs && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked
# The sources may be older than the empty program: without the touch, cargo would take that for up to date.
# --version proves that it is gone. Line tables are four fifths of the program; function names stay for backtraces.
COPY . .
ARG CLAMGATE_COMMIT=unknown
RUN touch src/lib.rs src/main.rs \
 && CLAMGATE_COMMIT="$CLAMGATE_COMMIT" cargo build --release --locked \
 && target/release/clamgate --version | grep -F clamgate \
 && strip --strip-debug target/release/clamgate

FROM debian:bookworm-slim
# The user comes first, so that Debian's packages find it and do not make one with another id. It has the name they expect:
# freshclam changes to it when root starts it. policy-rc.d keeps the package from starting freshclam's daemon.
# libclamav and freshclam come from the same release, or freshclam would test with an engine that clamgate does not use.
RUN groupadd --gid 10001 clamav \
 && useradd --uid 10001 --gid clamav --no-create-home --home-dir /var/lib/clamav --shell /usr/sbin/nologin clamav \
 && printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates clamav-freshclam libclamav12 \
 && rm -rf /var/lib/apt/lists/* /var/lib/clamav/* \
 && install -d -o clamav -g clamav -m 755 /var/lib/clamav
COPY --chmod=644 freshclam/freshclam.conf /etc/clamgate/freshclam.conf
COPY --chmod=755 freshclam/update.sh /usr/local/bin/clamgate-update
COPY --chmod=644 LICENSE /usr/share/doc/clamgate/LICENSE
COPY --from=build /build/target/release/clamgate /usr/local/bin/clamgate

ENV CLAMGATE_LOG__FORMAT=json \
    CLAMGATE_DEFINITIONS__FRESHCLAM__ENABLED=true \
    CLAMGATE_DEFINITIONS__FRESHCLAM__CONFIG_FILE=/etc/clamgate/freshclam.conf
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# All that is written to. Declared, because ECS gives a volume the owner and mode of the image's directory only then.
# A tmpfs is better for /tmp.
VOLUME ["/var/lib/clamav", "/tmp"]
# The first start downloads some 300 MB and loads them before there is anything to be healthy.
HEALTHCHECK --start-period=10m --interval=30s --timeout=5s --retries=3 CMD ["clamgate", "health"]
# Drains; give it longer than service.grace_secs (25) before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["clamgate"]
CMD ["serve"]

ARG CLAMGATE_COMMIT=unknown
LABEL org.opencontainers.image.title="clamgate" \
      org.opencontainers.image.description="Malware scanning for uploads: a warm ClamAV engine behind S3 event notifications" \
      org.opencontainers.image.licenses="GPL-2.0-only" \
      org.opencontainers.image.revision="$CLAMGATE_COMMIT"
