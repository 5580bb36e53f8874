# The image of pik: `docker build -t pik .`, for x86-64 and arm64. docs/installing.md says how to use it.
# A digest in the place of the tag pins the base as well: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-trixie

# What pik needs changes less often than pik, so it is a layer of the image. Every package is a wheel, checked by its hash.
FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
COPY packaging/image.lock ./
RUN python -m venv --without-pip /opt/pik \
    && python -m pip --python /opt/pik/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: -r image.lock

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /build
COPY packaging/build.lock ./
RUN python -m venv /build/env \
    && env/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY docs/man docs/man
COPY pik pik
RUN env/bin/python -m hatchling build -t wheel -d /opt/dist

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="pik" \
      org.opencontainers.image.description="Pipeline Investigation Kit" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin pik \
    && mkdir /data \
    && chown pik:pik /data
COPY --from=packages /opt/pik /opt/pik
COPY --from=wheel /opt/dist /opt/dist
RUN python -m pip --python /opt/pik/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-index --no-deps /opt/dist/*.whl
# Bytecode was written when the packages were installed; nothing outside /data and /tmp is written to.
ENV PATH=/opt/pik/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# The store is /data/.pik.
WORKDIR /data
VOLUME /data
ENTRYPOINT ["pik"]
CMD ["--help"]
