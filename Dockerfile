# syntax=docker/dockerfile:1
# docker build --target cpu -t medmaskrcnn .          for machines without a GPU
# docker build --target cuda -t medmaskrcnn:cuda .    for NVIDIA GPUs: torch from PyPI brings CUDA along
# docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD/scans:/scans:ro" -v "$PWD/out:/out" \
#     medmaskrcnn batch /scans -o /out --model abdomen-mr
#
# The models lie in the wheel: nothing is fetched at run time, and no network is needed.

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY medmaskrcnn medmaskrcnn
COPY kernels kernels
COPY datasets datasets
COPY napari_plugin napari_plugin
RUN python -m pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    TRITON_CACHE_DIR=/tmp/triton \
    PATH=/opt/medmaskrcnn/bin:$PATH
RUN python -m venv /opt/medmaskrcnn \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin medmaskrcnn
COPY --from=wheel /wheels /wheels
WORKDIR /work
ENTRYPOINT ["medmaskrcnn"]
CMD ["--help"]

FROM base AS cuda
# Triton compiles the operators at their first use, which takes a C compiler and Python's headers (in the base image).
# The package caps nothing: the newest torch and libraries are what it is tested with.
# hadolint ignore=DL3013
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc=4:12.* libc6-dev=2.36-* \
    && rm -rf /var/lib/apt/lists/* \
    && wheel=$(echo /wheels/medmaskrcnn-*.whl) \
    && pip install --no-cache-dir "${wheel}[cluster,pacs]"
USER 10001:10001

# The last stage is what `docker build .` makes.
FROM base AS cpu
# hadolint ignore=DL3013
RUN wheel=$(echo /wheels/medmaskrcnn-*.whl) \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --no-cache-dir "${wheel}[cluster,pacs]"
USER 10001:10001
