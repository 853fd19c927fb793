# For machines with an NVIDIA GPU: docs/gpu.md says how it is built and run. What is installed is what pyproject.toml
# pins; CUDA's libraries come with PyTorch and DALI, and of the machine itself the driver is all that is needed.
FROM python:3.11.13-slim-bookworm

# Triton compiles a small module when it first starts a kernel: a C compiler; Python.h is in the image. OpenCV's wheel
# needs the two libraries.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/costream
COPY . .

# No driver is seen while the image is built, so faiss-cpu is installed, which serves beside a GPU, too: the second stamp
# keeps make from exchanging it when the container runs.
RUN make setup && cp .venv/.installed-cpu .venv/.installed-gpu

# What NVIDIA's container toolkit gives to the container; and a place for compiled kernels, whoever runs it.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video HOME=/tmp

# `docker run ... costream pretrain RUN=... STORE=...` is `make pretrain RUN=... STORE=...`.
ENTRYPOINT ["make"]
CMD ["help"]
