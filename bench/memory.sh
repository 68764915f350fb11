#!/usr/bin/env bash
# Does a worker's memory stay flat? Prints its resident memory after the first tenth of the requests and at the end.
#
#   bench/memory.sh [VARIANT=REQUESTS...]    (default: c-bare=1000000 d-bare=100000 c-as=1000000
#                   d-as=100000 gateway=1000000)
#
# The gateway is that of t/gateway, with another configuration for every hundredth request. The other variants, the
# environment and what it needs are those of bench/run.sh. Each has an nginx of its own.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

resident() {
    awk '/^VmRSS:/ { print $2 }' "/proc/$worker/status"
}

if (($# == 0)); then
    set -- c-bare=1000000 d-bare=100000 c-as=1000000 d-as=100000 gateway=1000000
fi
printf '%-8s %10s %18s %18s %10s\n' variant requests "KiB at a tenth" "KiB at the end" growth
for pair; do
    variant=${pair%=*} requests=${pair#*=}
    start_nginx
    COUNT=$((requests / 10)) load "/$variant" -d 3600s -s "$root/bench/count.lua" >/dev/null
    tenth=$(resident)
    COUNT=$((requests - requests / 10)) load "/$variant" -d 3600s -s "$root/bench/count.lua" >/dev/null
    end=$(resident)
    stop_nginx
    printf '%-8s %10d %18d %18d %9d%%\n' "$variant" "$requests" "$tenth" "$end" $(((end - tenth) * 100 / tenth))
done
