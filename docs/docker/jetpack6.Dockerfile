# edgepkd on a Jetson with JetPack 6 (CUDA 12.6, TensorRT 10.3, Python 3.10); not built yet.
# docker build -f docs/docker/jetpack6.Dockerfile -t edgepkd .
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip python3-venv python3-libnvinfer \
 && rm -rf /var/lib/apt/lists/*
# The image's own tensorrt is to be seen.
RUN python3 -m venv --system-site-packages /opt/edgepkd
COPY . /src
RUN /opt/edgepkd/bin/pip install --no-cache-dir '/src[cuda]' && rm -rf /src
WORKDIR /work
ENTRYPOINT ["/opt/edgepkd/bin/edgepkd"]
