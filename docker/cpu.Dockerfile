# The image of the miniatures: Python and the CPU lock, no compiler, no network needed at run time.
# Built by `make image-cpu`.  By hand: docker buildx build --load -f docker/cpu.Dockerfile -t r1mm-cpu .
#
#   --build-arg BASE_IMAGE=NAME@sha256:...   another base with Python 3.11 or 3.12; BASE_DIGEST=sha256:... is its label
#   --secret id=ca_bundle,src=FILE           certificates of a proxy that inspects TLS
#   --build-context wheels=DIR               packages to take from DIR where their hash is the lock's
ARG BASE_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM scratch AS wheels

FROM ${BASE_IMAGE} AS tools
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks,target=/locks \
    /install.sh tools /locks cpu.txt

FROM ${BASE_IMAGE}
RUN --mount=type=bind,source=docker/install.sh,target=/install.sh /install.sh user
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks/cpu.txt,target=/locks/cpu.txt \
    /install.sh packages /locks/cpu.txt
COPY --from=tools /opt/tools/sbom.cdx.json /opt/r1mm/sbom.cdx.json

# R1MM_IMAGE is what a manifest names until a launcher gives the image's id.
# HOME is where any uid may write; USER and LOGNAME answer for a uid without an entry in /etc/passwd.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/r1mm PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=r1mm LOGNAME=r1mm HF_HOME=/cache/huggingface R1MM_IMAGE=unnamed

# What changes with every commit comes last.
WORKDIR /opt/r1mm
COPY docker/locks/cpu.txt docker/locks/cpu.txt
COPY recipes recipes
COPY r1mm r1mm
USER 10001:10001
ENTRYPOINT ["python", "-m", "r1mm"]
CMD ["--help"]

ARG BASE_IMAGE
ARG BASE_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG LOCK_SHA256=unknown
ARG SOURCE_SHA256=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="r1mm-cpu" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      r1mm.lock.sha256="${LOCK_SHA256}" \
      r1mm.source.sha256="${SOURCE_SHA256}"
