#!/bin/sh
# Rents and returns boxes until there are as many as the queue needs. Runs beside an edge, for ever.
#
# Set START and STOP to commands of your provider that start one box and stop one box (`s3seg worker` drains on SIGTERM,
# so a box may be stopped at any time), and COUNT to one that prints how many run.
set -eu

: "${START:?a command that starts one box}" "${STOP:?a command that stops one box}" "${COUNT:?prints how many run}"
WAIT=${WAIT:-60}        # seconds within which every task should be done
RATE=${RATE:-1}         # tasks a second that one box does
MOST=${MOST:-8}         # never rent more
PAUSE=${PAUSE:-30}      # seconds between two looks
IDLE=${IDLE:-20}        # looks with too many boxes before one is returned

idle=0
while :; do
    backlog=$(s3seg admin backlog --wait "$WAIT" --rate "$RATE" --json) || { sleep "$PAUSE"; continue; }
    needed=$(printf '%s' "$backlog" | python3 -c 'import json, sys; print(json.load(sys.stdin)["workers_needed"])')
    [ "$needed" -le "$MOST" ] || needed=$MOST
    running=$(sh -c "$COUNT") || { sleep "$PAUSE"; continue; }
    if [ "$running" -lt "$needed" ]; then
        idle=0
        echo "$needed boxes needed, $running run: starting one"
        sh -c "$START" || echo "starting a box failed" >&2
    elif [ "$running" -gt "$needed" ]; then
        idle=$((idle + 1))
        if [ "$idle" -ge "$IDLE" ]; then
            idle=0
            echo "$needed boxes needed, $running run: stopping one"
            sh -c "$STOP" || echo "stopping a box failed" >&2
        fi
    else
        idle=0
    fi
    sleep "$PAUSE"
done
