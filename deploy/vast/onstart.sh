#!/bin/bash
# On-start script of a Vast.ai template; runs as root at each start of the machine. See docs/how-to/deploy.md.
#
# It installs s3seg beside the image's own PyTorch, and keeps a worker running that pulls its tasks, since the box is behind
# NAT. Weights are fetched once into the workspace, which survives a stop. SIGTERM drains the worker.
set -eu

home=${S3SEG_HOME:-/workspace/s3seg}
log=${S3SEG_LOG:-/var/log/s3seg.log}
environment=${S3SEG_ENVIRONMENT:-/proc/1/environ} # the template's variables reach the first process only

while IFS= read -r -d '' line; do
    case $line in
        S3SEG_* | API_SECRET_KEY=* | HF_*) export "${line?}" ;;
    esac
done < "$environment"
export HF_HOME=${HF_HOME:-$home/weights}
export S3SEG_CHECKPOINT=${S3SEG_CHECKPOINT:-litetext}
export S3SEG_DATA_DIR=${S3SEG_DATA_DIR:-$home/data}

mkdir -p "$home"
if [ ! -x "$home/venv/bin/s3seg" ]; then
    python3 -m venv --system-site-packages "$home/venv"
    "$home/venv/bin/pip" install --quiet "${S3SEG_PACKAGE:-s3seg[cloud]}"
fi
PATH="$home/venv/bin:$PATH"

s3seg doctor --services >> "$log" 2>&1 || echo "a setting does not work; see $log" >&2

keep_working() {
    stop=
    trap 'stop=1; kill -TERM "$worker" 2> /dev/null || true' TERM
    while [ -z "$stop" ]; do
        s3seg worker --pull >> "$log" 2>&1 &
        worker=$!
        while kill -0 "$worker" 2> /dev/null; do wait "$worker" || true; done # a signal ends `wait`, not the worker
        [ -n "$stop" ] || sleep "${S3SEG_RESTART_PAUSE:-5}"
    done
}
keep_working > /dev/null 2>&1 &
echo $! > "$home/worker.pid"
echo "a worker runs (stop it with: kill \$(cat $home/worker.pid)); its log is $log"
