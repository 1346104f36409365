# silverd with its plugins. `docker compose up` builds it; by hand: docker build -t silverd .
# Any builder understands this file: no other Dockerfile frontend is downloaded.

FROM rust:1.95.0-bookworm AS rust
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The image has the compiler that rust-toolchain.toml names; only the wasm target may be missing.
COPY rust-toolchain.toml ./
RUN rustup target add wasm32-unknown-unknown

# All packages without their code: the layer of the dependencies depends on nothing else.
FROM rust AS manifests
COPY . /all
RUN cd /all && mkdir /manifests \
    && find . -name target -prune -o \( -name Cargo.toml -o -name Cargo.lock \) -print | tar -c -T - | tar -x -C /manifests \
    && for code in $(find . -name target -prune -o \( -path '*/src/lib.rs' -o -path '*/src/main.rs' -o -path '*/benches/*.rs' \) -print); do \
         mkdir -p "/manifests/$(dirname "$code")" && echo 'fn main() {}' > "/manifests/$code"; done

FROM rust AS build
COPY --from=manifests /manifests ./
# Half an hour on two cores; again only when a Cargo.toml or Cargo.lock changes.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --release --locked -p silverd \
    && cd plugins && cargo build --release --locked --target wasm32-unknown-unknown
COPY . .
# Cargo compares times, and the sources are older than the empty files that were built.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find daemon plugins -name '*.rs' -not -path '*/target/*' -exec touch {} + \
    && cargo build --release --locked -p silverd \
    && (cd plugins && cargo build --release --locked --target wasm32-unknown-unknown) \
    && mkdir -p /out/plugins && strip -o /out/silverd target/release/silverd \
    && cp plugins/target/wasm32-unknown-unknown/release/*.wasm /out/plugins/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /srv/silverd --no-create-home --shell /usr/sbin/nologin silverd \
    && mkdir -p /srv/silverd/data && chown -R silverd:silverd /srv/silverd
COPY --from=build /out/silverd /usr/local/lib/silverd/silverd
COPY --from=build /out/plugins /usr/share/silverd/plugins
COPY --chmod=755 deploy/docker-entrypoint /usr/local/bin/docker-entrypoint
RUN ln -s docker-entrypoint /usr/local/bin/silverd
COPY --chown=silverd:silverd pipeline.toml /srv/silverd/pipeline.toml
COPY --chown=silverd:silverd plugins /srv/silverd/plugins
COPY --chown=silverd:silverd data/reference /srv/silverd/data/reference
# silverd takes a plugin's wasm from here if the mounted folder does not have it, since the image has no Rust to build it.
ENV SILVERD_PLUGINS=/usr/share/silverd/plugins
WORKDIR /srv/silverd
USER silverd
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=180s --retries=6 \
    CMD ["docker-entrypoint", "ready"]
ENTRYPOINT ["docker-entrypoint"]
CMD ["run"]
