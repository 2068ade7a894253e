# The broker in a small image that can replace Apache Kafka's own: the same variables
# (KAFKA_…, CLUSTER_ID), start script, data volume and mounted configuration.
#
#   docker build -t ottla .
#   docker run --rm -p 9092:9092 ottla

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# Use the image's own toolchain, not the one in rust-toolchain.toml.
ENV RUSTUP_TOOLCHAIN=$RUST_VERSION
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin ottla \
    && cp target/release/ottla /usr/local/bin/ottla

FROM debian:bookworm-slim AS root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends busybox-static \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/ottla /usr/local/bin/ottla
COPY docker/root /usr/local/bin/root
RUN root /image

FROM scratch
LABEL org.opencontainers.image.title="Ottla" \
      org.opencontainers.image.description="A Kafka-wire-compatible streaming server in one binary" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/bin:/usr/bin
COPY --from=root /image /
COPY docker/run docker/health /etc/kafka/docker/
RUN chown -R appuser:appuser /etc/kafka /home/appuser /mnt/shared/config /var/lib/kafka
USER appuser
# The default log.dir is ./data, so data is in the volume without a setting.
WORKDIR /var/lib/kafka
VOLUME ["/var/lib/kafka/data", "/mnt/shared/config"]
EXPOSE 9092
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=6s --start-period=2s --retries=3 CMD ["/etc/kafka/docker/health"]
CMD ["/etc/kafka/docker/run"]
