#!/usr/bin/env bash
# How long the command proxy-wasm takes for a filter of 100 kB, from the start of the process to its end: without a cache of
# compiled filters, and with a warm one.
#
#   bench/command.sh [FILTER]
#
# Prints the median and the longest of ROUNDS runs. Exit code 1 when a median with a warm cache is over 0.2 s.
#
# Environment: ROUNDS (20), PROXY_WASM (the command, else target/release/proxy-wasm).
# Needs the command (cargo build --release -p proxy-wasm) and an idle core.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=${PROXY_WASM:-$(tools/target-dir)/release/proxy-wasm}
filter=${1:-examples/auth/build/release.wasm}
configuration='auth /check'
rounds=${ROUNDS:-20}
limit=200000
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

[[ -x $command ]] || { echo "there is no $command: cargo build --release -p proxy-wasm" >&2; exit 2; }
[[ -z ${1:-} ]] || configuration=
printf 'filter: %s, %d bytes\n' "$filter" "$(stat -c %s "$filter")"

# Prints "MEDIAN LONGEST" in microseconds: measure ARG...
measure() {
    local start times=()
    for ((round = 0; round < rounds; round++)); do
        start=${EPOCHREALTIME/./}
        # A filter that this request fails on ends with 1.
        "$command" "$@" >"$dir/out" || (($? == 1))
        times+=($((${EPOCHREALTIME/./} - start)))
    done
    printf '%s\n' "${times[@]}" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)], all[NR] }'
}

slow=0
for name in inspect run; do
    args=("$name" "$filter")
    [[ $name == run && -n $configuration ]] && args+=(--config "$configuration")
    for cache in none warm; do
        if [[ $cache == none ]]; then
            read -r median longest < <(measure "${args[@]}" --no-cache)
        else
            "$command" "${args[@]}" --cache-dir "$dir/cache" >"$dir/out" || (($? == 1))
            read -r median longest < <(measure "${args[@]}" --cache-dir "$dir/cache")
            if ((median > limit)); then slow=1; fi
        fi
        printf '%-8s cache %-5s median %7.1f ms, longest %7.1f ms\n' "$name" "$cache" \
            "$(awk "BEGIN { print $median / 1000 }")" "$(awk "BEGIN { print $longest / 1000 }")"
    done
done
exit "$slow"
