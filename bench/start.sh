#!/usr/bin/env bash
# How long nginx takes from its start to the first answer of a filter that is large, with and without a cache of compiled
# modules.
#
#   bench/start.sh
#
# Variants:
#   small    a filter of 200 bytes: what nginx, Lua and the library take by themselves
#   cold     the large filter, compiled; there is no cache_dir
#   first    the same with a cache_dir that is empty: compiled and kept
#   warm     the same with the cache_dir that `first` has filled
#
# Each round starts and stops nginx once for each variant, in this order. The clock runs from the start of the process
# until an answer has come that has the filter's header. The table shows medians over the rounds, and the ratio to cold.
# The module is made by bench/module.py: functions as compilers make them, and nothing twice.
#
# Environment: ROUNDS (5), MIB (10) of the module, PORT (8089), RPW_NGINX (nginx).
# Needs a built library (./build.sh build), python3, wat2wasm (Debian: wabt), two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${ROUNDS:-5}

fetch() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    cat <&3
    exec 3>&-
}

# Prints "VARIANT MICROSECONDS": measure VARIANT MODULE [CACHE_DIR]
measure() {
    local start end answer=
    printf 'return { module = "%s", cache_dir = %s }\n' "$2" "${3:-nil}" >"$dir/variant.lua"
    start=${EPOCHREALTIME/./}
    launch
    until answer=$(fetch 2>/dev/null) && [[ -n $answer ]]; do
        kill -0 "$master" 2>/dev/null || die "nginx did not start"
        sleep 0.002
    done
    end=${EPOCHREALTIME/./}
    quit_nginx
    [[ $answer == *"hello: world!"* ]] || die "no filter in the answer: $answer"
    echo "$1" $((end - start))
}

prepare "$root/bench/start.conf" wat2wasm python3
wat2wasm -o "$dir/small.wasm" "$root/t/guests/wat/bare.wat"
python3 "$root/bench/module.py" "${MIB:-10}" >"$dir/large.wasm"
printf 'module: %d bytes\n' "$(stat -c %s "$dir/large.wasm")"

results=$dir/results
cache=$dir/cache
for ((round = 1; round <= rounds; round++)); do
    printf 'round %d of %d\r' "$round" "$rounds" >&2
    rm -rf "$cache"
    {
        measure small "$dir/small.wasm"
        measure cold "$dir/large.wasm"
        measure first "$dir/large.wasm" "\"$cache\""
        measure warm "$dir/large.wasm" "\"$cache\""
    } >>"$results"
done
printf 'entry:  %d bytes\n' "$(stat -c %s "$cache"/*)"

sort -k 1,1 -k 2,2n "$results" | awk '
    { times[$1, ++runs[$1]] = $2 }
    END {
        printf "%-8s %10s %22s %14s\n", "variant", "median", "lowest to highest", "of cold"
        split("small cold first warm", names, " ")
        cold = times["cold", int((runs["cold"] + 1) / 2)]
        for (i = 1; i <= 4; i++) {
            name = names[i]
            count = runs[name]
            middle = times[name, int((count + 1) / 2)]
            printf "%-8s %7.0f ms %8.0f to %7.0f ms %9s 1/%.1f\n", name, middle / 1000, times[name, 1] / 1000, \
                times[name, count] / 1000, "", cold / middle
        }
    }'
