# Two images of the same product:
#   docker build --target gpu --tag hrm-orchestrator:gpu .     on NVIDIA's PyTorch container, also for aarch64 (GB10)
#   docker build --target cpu --tag hrm-orchestrator:cpu .     plain Python, with the versions of constraints.txt
# A newer GPU generation than the container knows: --build-arg BASE=nvcr.io/nvidia/pytorch:NEWER-py3
#
#   docker run --rm --init --gpus all --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 \
#       --volume "$PWD/runs:/storage" hrm-orchestrator:gpu sweep experiments/text_adapt.yaml --storage /storage
#
# `python -m orchestrator render docker FILE` writes both commands for an experiment.
ARG BASE=nvcr.io/nvidia/pytorch:25.10-py3

FROM ${BASE} AS gpu
WORKDIR /opt/hrm-orchestrator
COPY . .
# The container's own torch is built for its GPUs: its constraint file keeps it, ours would replace it. The build ends
# here if another torch got in all the same.
RUN python -c "import torch; print(torch.__version__)" > /tmp/torch \
    && PIP_CONSTRAINT=/etc/pip/constraint.txt pip install --no-cache-dir ".[s3]" \
    && python -c "import torch; print(torch.__version__)" | diff - /tmp/torch
ENV RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
ENTRYPOINT ["python", "-m", "orchestrator"]
CMD ["doctor"]

FROM python:3.11-slim AS cpu
# A compiler, since long trainings are compiled.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hrm-orchestrator
COPY . .
# torch without CUDA comes from PyTorch's own index; pip takes its +cpu build for the version that is asked for.
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu ".[s3]"
ENV RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
ENTRYPOINT ["python", "-m", "orchestrator"]
CMD ["doctor"]
