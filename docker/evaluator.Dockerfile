# The image of evaluations by lmms-eval: the image of the full recipes, step for step, so that an engine that holds that
# one holds most of this one too; and beside its packages lmms-eval in an environment of its own, whose dependencies
# contradict r1mm's.  A stage runs as in the other image, and starts the second interpreter where a task is lmms-eval's.
# Built by `make image-evaluator`.  By hand: docker buildx build --load -f docker/evaluator.Dockerfile -t r1mm-evaluator .
# Build arguments, secret and wheels as in cpu.Dockerfile.  On x86-64 alone: decord has wheels for no other.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04@sha256:5dc1bca23d05bd37b011be68ec470c03b403a5da07ec3a86e41af9470e9d0cc6

FROM scratch AS wheels

FROM ${BASE_IMAGE} AS python
RUN --mount=type=bind,source=docker/install.sh,target=/install.sh /install.sh python && /install.sh user

FROM python AS tools
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks,target=/locks \
    /install.sh tools /locks gpu.txt

FROM tools AS bill
RUN --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks/evaluator.txt,target=/locks/evaluator.txt \
    /install.sh bill /locks/evaluator.txt /opt/tools/evaluator.cdx.json

FROM python
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks/gpu.txt,target=/locks/gpu.txt \
    --mount=type=bind,source=docker/locks/build.txt,target=/locks/build.txt \
    /install.sh packages /locks/gpu.txt /locks/build.txt
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=docker/install.sh,target=/install.sh \
    --mount=type=bind,source=docker/locks/evaluator.txt,target=/locks/evaluator.txt \
    --mount=type=bind,source=docker/locks/build.txt,target=/locks/build.txt \
    VENV=/opt/evaluator /install.sh packages /locks/evaluator.txt /locks/build.txt
COPY --from=tools /opt/tools/sbom.cdx.json /opt/r1mm/sbom.cdx.json
COPY --from=bill /opt/tools/evaluator.cdx.json /opt/r1mm/evaluator.cdx.json

# R1MM_IMAGE is what a manifest names until a launcher gives the image's id.
# HOME is where any uid may write; USER and LOGNAME answer for a uid without an entry in /etc/passwd.
# HF_TOKEN_PATH is where compose.yaml mounts the secret: a path, no token.  R1MM_EVALUATOR_PYTHON: r1mm/evaluate/lmms.py.
# hadolint ignore=DL3064
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/r1mm PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=r1mm LOGNAME=r1mm HF_HOME=/cache/huggingface HF_TOKEN_PATH=/run/secrets/hf_token \
    TRITON_CACHE_DIR=/cache/triton TORCHINDUCTOR_CACHE_DIR=/cache/inductor VLLM_CACHE_ROOT=/cache/vllm VLLM_NO_USAGE_STATS=1 \
    TORCH_EXTENSIONS_DIR=/cache/inductor/extensions CUDA_CACHE_PATH=/cache/inductor/cuda FLASHINFER_WORKSPACE_BASE=/cache/vllm \
    R1MM_EVALUATOR_PYTHON=/opt/evaluator/bin/python R1MM_IMAGE=unnamed

# What changes with every commit comes last.
WORKDIR /opt/r1mm
COPY docker/locks/gpu.txt docker/locks/evaluator.txt docker/locks/
COPY recipes recipes
COPY r1mm r1mm
USER 10001:10001
ENTRYPOINT ["python", "-m", "r1mm"]
CMD ["--help"]

ARG BASE_IMAGE
ARG BASE_DIGEST=sha256:5dc1bca23d05bd37b011be68ec470c03b403a5da07ec3a86e41af9470e9d0cc6
ARG LOCK_SHA256=unknown
ARG SOURCE_SHA256=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="r1mm-evaluator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      r1mm.lock.sha256="${LOCK_SHA256}" \
      r1mm.source.sha256="${SOURCE_SHA256}"
