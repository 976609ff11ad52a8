# Assigns cells: no torch, no compiler, no network at run time, any user id, read-only root file system.
#   docker build -f docker/infer.Dockerfile -t scrcl .
#   docker run --rm --network none -v "$PWD:/data" scrcl scrcl-assign /data/new.h5ad -o /data/new.types.h5ad
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python3 -m venv /opt/scrcl
# Dependencies first: this layer is rebuilt only when they change.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scrcl_infer scrcl_infer
COPY scrcl_train scrcl_train
COPY models models
RUN /opt/scrcl/bin/pip install --no-cache-dir -c constraints.txt . \
 && /opt/scrcl/bin/pip uninstall -y pip setuptools \
 && rm -rf /opt/scrcl/lib/python3*/site-packages/scrcl_train /opt/scrcl/bin/scrcl-train \
 && find /opt/scrcl -name tests -type d -prune -exec rm -rf {} + \
 && /opt/scrcl/bin/python -m compileall -q /opt/scrcl/lib

FROM python:3.11-slim-bookworm
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="scRCL inference" \
      org.opencontainers.image.description="Assigns single cells to types with a scRCL bundle, offline" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/scrcl /opt/scrcl
ENV PATH=/opt/scrcl/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 scrcl && useradd --uid 10001 --gid scrcl --no-create-home --shell /usr/sbin/nologin scrcl
USER 10001:10001
WORKDIR /data
CMD ["scrcl-assign", "--help"]
