#!/usr/bin/env bash
# How long the command proxy-wasm takes for a filter of 100 kB, from the start of the process to its end: without a cache of
# compiled filters, and with a warm one.
#
#   bench/command.sh [FILTER]
#
# Prints the least and the median of ROUNDS runs, and the least processor time (user and system) of one. Exit code 1 when the
# least with a warm cache is over 0.2 s: what else the machine does makes a run longer, and none shorter.
#
# Environment: ROUNDS (20), PROXY_WASM (the command, else target/release/proxy-wasm).
# Needs the command (cargo build --release -p proxy-wasm).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=${PROXY_WASM:-$(tools/target-dir)/release/proxy-wasm}
filter=${1:-examples/auth/build/release.wasm}
configuration='auth /check'
rounds=${ROUNDS:-20}
limit=200
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

[[ -x $command ]] || { echo "there is no $command: cargo build --release -p proxy-wasm" >&2; exit 2; }
[[ -z ${1:-} ]] || configuration=
printf 'filter: %s, %d bytes\n' "$filter" "$(stat -c %s "$filter")"

# Prints "LEAST MEDIAN PROCESSOR" in milliseconds: measure ARG...
measure() {
    local TIMEFORMAT='%R %U %S'
    for ((round = 0; round < rounds; round++)); do
        # A filter that this request fails on ends with 1.
        { time { "$command" "$@" >"$dir/out" || (($? == 1)); } } 2>&1
    done | awk '{ print $1 * 1000, ($2 + $3) * 1000 }' | sort -n | awk '
        { all[NR] = $1; if (NR == 1 || $2 < least) least = $2 }
        END { print all[1], all[int((NR + 1) / 2)], least }'
}

slow=0
for name in inspect run; do
    args=("$name" "$filter")
    [[ $name == run && -n $configuration ]] && args+=(--config "$configuration")
    for cache in none warm; do
        if [[ $cache == none ]]; then
            read -r least median processor < <(measure "${args[@]}" --no-cache)
        else
            "$command" "${args[@]}" --cache-dir "$dir/cache" >"$dir/out" || (($? == 1))
            read -r least median processor < <(measure "${args[@]}" --cache-dir "$dir/cache")
            if ((least > limit)); then slow=1; fi
        fi
        printf '%-8s cache %-5s least %5d ms, median %5d ms, processor %5d ms\n' "$name" "$cache" "$least" "$median" \
            "$processor"
    done
done
exit "$slow"
