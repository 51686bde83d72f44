# The gpu side. PyTorch's wheels bring CUDA, so the host needs only NVIDIA's driver and container toolkit.
#   docker build -f deploy/docker/gpu.Dockerfile -t s3seg-gpu .
#   docker run --gpus all -v s3seg-weights:/weights --env-file .env -e S3SEG_ACCEPT_LICENSE=1 s3seg-gpu
FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 10001 s3seg \
    && install -d -o s3seg -g s3seg /weights /data
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE constraints.txt ./
COPY supabase/migrations supabase/migrations
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[cloud]' && rm -r /src/*

USER 10001
WORKDIR /home/s3seg
ENV HF_HOME=/weights S3SEG_DATA_DIR=/data S3SEG_CHECKPOINT=litetext PYTHONUNBUFFERED=1
VOLUME ["/weights", "/data"]
EXPOSE 8001
HEALTHCHECK --interval=15s --timeout=5s --start-period=20m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/ready', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["s3seg", "serve", "gpu", "--pull", "--host", "0.0.0.0", "--port", "8001"]
