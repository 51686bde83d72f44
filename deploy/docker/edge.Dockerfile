# The edge.
#   docker build -f deploy/docker/edge.Dockerfile -t s3seg-edge .
#   docker run -p 127.0.0.1:8000:8000 -v s3seg-data:/data --env-file .env s3seg-edge
# It has no PyTorch. Pillow and numpy, with which it decodes uploads, are in the extra "images"; without them
# (--build-arg EXTRAS=cloud) set S3SEG_UPLOAD_CHECK=header.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY packaging packaging
COPY supabase/migrations supabase/migrations
COPY src src
RUN python packaging/build.py --only s3seg-slim --out /wheels

FROM python:3.12-slim-bookworm
ARG EXTRAS=cloud,images
RUN useradd --create-home --uid 10001 s3seg \
    && install -d -o s3seg -g s3seg -m 700 /data
COPY constraints.txt /tmp/
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/*.whl)[$EXTRAS]"

USER 10001
WORKDIR /home/s3seg
ENV S3SEG_DATA_DIR=/data PYTHONUNBUFFERED=1
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
STOPSIGNAL SIGTERM
CMD ["s3seg", "serve", "edge", "--host", "0.0.0.0", "--port", "8000"]
