# The measurement of CPU time per request, for scripts that sourced lib.sh and started nginx.
# shellcheck shell=bash disable=SC2154
#
# Each round measures every variant once, one after the other, so that a slow moment of the machine meets them all. CPU time
# is what the kernel counts for all threads of the worker, user and system, divided by the requests that wrk completed: it
# does not depend on how fast wrk is.
rounds=${ROUNDS:-5}
duration=${DURATION:-4}

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

# Measures the locations of these names, and prints a table of medians over the rounds with ratios to the first:
# compare VARIANT...
compare() {
    local variant round results=$dir/results
    for variant in "$@"; do
        measure "$variant" 1 >/dev/null
    done
    for ((round = 1; round <= rounds; round++)); do
        printf 'round %d of %d\r' "$round" "$rounds" >&2
        for variant in "$@"; do
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
}
