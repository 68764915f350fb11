#!/usr/bin/env bash
# What a filter costs: CPU time of an nginx worker per request, with and without one.
#
#   bench/run.sh [VARIANT...]
#
# Variants (default: all; a is always measured, for the ratios):
#   a        nginx's own `return 200`
#   b        plain Lua that sets a header in header_filter_by_lua
#   c-bare   a filter that does nothing; its context was configured once, in init_by_lua
#   d-bare   the same filter in the documented form: on_configure in every request
#   chain-1  the filter that does nothing, in a chain of one: chain:header_filter()
#   chain-5  a chain of five such filters
#   c-as     the filter of examples/add-header (AssemblyScript, public SDK), configured once
#   d-as     the same, configured in every request
#
# A real nginx has one worker, pinned to core 0; wrk loads it from core 1 over kept-alive connections. Each round
# measures every variant once, one after the other, so that a slow moment of the machine meets them all. CPU time is
# what the kernel counts for all threads of the worker, user and system, divided by the requests that wrk completed: it
# does not depend on how fast wrk is. The table shows medians over the rounds.
#
# Environment: ROUNDS (5), DURATION of a measurement in seconds (4), CONNECTIONS (16), PORT (8089), RPW_NGINX (nginx).
# Needs a built library (./build.sh build), wrk, taskset, wat2wasm (Debian: wrk, util-linux, wabt), two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${ROUNDS:-5}
duration=${DURATION:-4}
variants=(a b c-bare d-bare chain-1 chain-5 c-as d-as)
if (($# > 0)); then
    variants=(a)
    for variant; do
        [[ $variant == a ]] || variants+=("$variant")
    done
fi

# Nanoseconds that the worker's threads have run.
cpu_time() {
    cat /proc/"$worker"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# Prints "VARIANT NANOSECONDS_PER_REQUEST REQUESTS_PER_SECOND".
measure() {
    local before after report
    before=$(cpu_time)
    report=$(load "/$1" -d "$2s")
    after=$(cpu_time)
    if [[ $report == *"Non-2xx"* || $report == *"Socket errors"* ]]; then
        die "/$1 failed: $report"
    fi
    awk -v variant="$1" -v time=$((after - before)) '
        / requests in / { requests = $1 }
        /^Requests\/sec:/ { rate = $2 }
        END { print variant, time / requests, rate }' <<<"$report"
}

start_nginx
results=$dir/results
for variant in "${variants[@]}"; do
    measure "$variant" 1 >/dev/null
done
for ((round = 1; round <= rounds; round++)); do
    printf 'round %d of %d\r' "$round" "$rounds" >&2
    for variant in "${variants[@]}"; do
        measure "$variant" "$duration" >>"$results"
    done
done

awk '
    function median(values, count,    i, j, swap) {
        for (i = 2; i <= count; i++)
            for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
                swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
            }
        return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
    }
    {
        if (!($1 in runs)) order[++variants] = $1
        runs[$1]++
        times[$1, runs[$1]] = $2
        rates[$1, runs[$1]] = $3
    }
    END {
        printf "%-8s %16s %9s %19s %12s\n", "variant", "CPU per request", "ratio", "lowest to highest", "requests/s"
        for (v = 1; v <= variants; v++) {
            name = order[v]
            for (i = 1; i <= runs[name]; i++) { time[i] = times[name, i]; rate[i] = rates[name, i] }
            middle = median(time, runs[name])
            if (v == 1) base = middle
            printf "%-8s %13.2f µs %9.2f %10.2f to %5.2f %12.0f\n", name, middle / 1000, middle / base, \
                time[1] / 1000, time[runs[name]] / 1000, median(rate, runs[name])
        }
    }' "$results"
