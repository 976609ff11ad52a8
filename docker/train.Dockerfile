# Trains models. CPU (TORCH_INDEX as below keeps CUDA libraries out; left out, torch comes from pip's own index):
#   docker build -f docker/train.Dockerfile -t scrcl-train --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
# CUDA (torch's own wheels carry the CUDA libraries; the base gives the driver hooks):
#   docker build -f docker/train.Dockerfile -t scrcl-train:cuda \
#     --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm --gpus all -v "$PWD:/data" scrcl-train:cuda scrcl-train /data/cells.h5ad -o /data/model
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ARG TORCH_INDEX=
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="scRCL training" \
      org.opencontainers.image.description="Finds cell populations without labels and exports a bundle" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A CUDA base comes without Python.
RUN command -v python3 >/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
WORKDIR /src
RUN python3 -m venv /opt/scrcl
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/scrcl/bin/pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY scrcl_infer scrcl_infer
COPY scrcl_train scrcl_train
COPY models models
RUN /opt/scrcl/bin/pip install --no-cache-dir -c constraints.txt ".[train]"
ENV PATH=/opt/scrcl/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib
RUN groupadd --gid 10001 scrcl && useradd --uid 10001 --gid scrcl --no-create-home --shell /usr/sbin/nologin scrcl
USER 10001:10001
WORKDIR /data
CMD ["scrcl-train", "--help"]
