# Untested where it was written (no Docker engine there): the steps are those of scripts/setup and `make dist`.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN scripts/setup build && CARGO_TARGET_DIR=/target cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libssl3 libsasl2-2 zlib1g libzstd1 ca-certificates git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home tagflow
COPY --from=build /target/release/tagflow /usr/local/bin/tagflow
USER tagflow
# Mount the project here; the state directory needs a volume of its own.
WORKDIR /project
ENTRYPOINT ["tagflow"]
CMD ["run"]
