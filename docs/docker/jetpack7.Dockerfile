# edgepkd on a Jetson with JetPack 7 (CUDA 13, TensorRT 10.13, Python 3.12); not built yet.
# docker build -f docs/docker/jetpack7.Dockerfile -t edgepkd .
# From JetPack 7 on a Jetson runs the arm64 images that servers run; choose the tag whose TensorRT is
# that of `edgepkd check`'s recipe.
ARG BASE=nvcr.io/nvidia/tensorrt:25.09-py3
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
# The image's own tensorrt is to be seen.
RUN python3 -m venv --system-site-packages /opt/edgepkd
COPY . /src
RUN /opt/edgepkd/bin/pip install --no-cache-dir '/src[cuda]' && rm -rf /src
WORKDIR /work
ENTRYPOINT ["/opt/edgepkd/bin/edgepkd"]
