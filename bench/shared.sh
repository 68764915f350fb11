#!/usr/bin/env bash
# What shared data gives: two workers, each pinned to a core, get and set 100 bytes under one key at the same time.
#
#   bench/shared.sh
#
# Variants, one after the other in each round:
#   ngx_shared   ngx.shared from Lua: get and set. Updates of the other worker are lost
#   guest        a filter: get, add one to a number in it, set on condition of the version, again when it was another: as the
#                workers meet on one key, an update takes more than one pair of a get and a set
#   lua          wasm.shared from Lua: get and set on condition of the version, not tried again
#
# A round of a variant is two million times in each worker, so that both are at it nearly all the time. At the end the
# filter's number must be that of all its updates: none was lost. The table shows medians of both workers
# together, and of the ratios of each round.
#
# Environment: ROUNDS (10: forty million updates), PORT (8089), RPW_NGINX (nginx). Needs a built library (./build.sh build),
# wat2wasm (Debian: wabt), and two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${ROUNDS:-10}
each=2000000

fetch() {
    local line
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
    while IFS= read -r line <&3; do
        [[ $line == $'\r' ]] && break
    done
    cat <&3
    exec 3>&-
}

# Prints "VARIANT UPDATES_PER_SECOND", or nothing when one worker did both halves.
measure() {
    fetch "/$1" >"$dir/one" &
    local other=$!
    sleep 0.02
    fetch "/$1" >"$dir/two"
    wait "$other"
    cat "$dir/one" "$dir/two" | awk -v variant="$1" -v each="$each" '
        NR == 1 { pid = $1; longest = $2 }
        NR == 2 && $1 != pid { print variant, 2 * each / ($2 > longest ? $2 : longest) }'
}

prepare "$root/bench/shared.conf" wat2wasm
wat2wasm -o "$dir/shared.wasm" "$root/bench/shared.wat"
launch
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$master" 2>/dev/null || die "nginx did not start"
    sleep 0.05
done

guests=0
for ((round = 1; round <= rounds; round++)); do
    printf 'round %d of %d\r' "$round" "$rounds" >&2
    for variant in ngx_shared guest lua; do
        # Again when one worker did both halves, so that every variant has every round.
        rate=
        until [[ -n $rate ]]; do
            rate=$(measure "$variant")
            [[ $variant == guest ]] && guests=$((guests + 2 * each))
        done
        echo "$rate" >>"$dir/results"
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
        rates[$1, ++runs[$1]] = $2
    }
    END {
        printf "%-12s %14s %8s %24s %7s\n", "variant", "updates/s", "ratio", "lowest to highest", "rounds"
        variants = split("ngx_shared guest lua", order)
        for (v = 1; v <= variants; v++) {
            name = order[v]
            for (i = 1; i <= runs[name]; i++) {
                rate[i] = rates[name, i]
                share[i] = rate[i] / rates["ngx_shared", i]
            }
            middle = median(rate, runs[name])
            printf "%-12s %14.0f %8.2f %12.0f to %8.0f %7d\n", name, middle, median(share, runs[name]), rate[1], rate[runs[name]], runs[name]
        }
    }' "$dir/results"

read -r count tries < <(fetch /count)
if ((count != guests)); then
    die "$((guests - count)) of $guests updates were lost"
fi
echo "none of $guests updates of the filter was lost; they took $tries pairs of a get and a set"
