#!/usr/bin/env bash
# What loading a large module costs the requests that are served meanwhile, and what four workers keep of its code.
#
#   bench/loading.sh
#
# First one worker serves two connections without a pause: for five seconds by itself, then while it loads a module in the
# background, then while it loads one as `load` does without that. The table shows how long answers took, the longest
# time that the worker did nothing else (stall), and the most processor time of its thread in such a time (busy). On a machine
# that does other things, busy tells what loading in the background adds: it has no time in which others ran. It has none of
# waiting for locks, files and compile threads either, which a stall has.
#
# Then four workers load the module in the background at the same time. The table shows the memory of each that is its own
# (private), and its part of what processes share (PSS: a page that four share counts as a quarter in each).
#
# After each, what one plugin more takes in a worker that has the module's code: the whole load, and its VM alone.
#
# Environment: MIB (19) of the first module, SHARED_MIB (10) of the second, MODULE, a file of which the second part makes VMs,
# too, PORT (8089), RPW_NGINX (nginx).
# Needs a built library (./build.sh build), python3, two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

get() {
    python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=600).read().decode().strip())' \
        "http://127.0.0.1:$port$1"
}

serve() {
    sed -i "s/@WORKERS@/$1/" "$dir/nginx.conf"
    printf 'return {}\n' >"$dir/variant.lua"
    launch
    until get /t >/dev/null 2>&1; do
        kill -0 "$master" 2>/dev/null || die "nginx did not start"
        sleep 0.05
    done
}

log_is_judged=1
prepare "$root/bench/loading.conf" python3
cp "$dir/nginx.conf" "$dir/template.conf"
python3 "$root/bench/module.py" "${MIB:-19}" >"$dir/large.wasm"
printf 'one worker, a module of %d bytes\n' "$(stat -c %s "$dir/large.wasm")"
serve 1
read -r worker _ <"/proc/$master/task/$master/children" || true
memory() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$worker/status"; }
before=$(memory VmRSS)
python3 "$root/bench/loading.py" "$port" "$dir/large.wasm"
printf 'memory of the worker (RSS), KiB: %d before, %d at the most, %d after both loads\n' "$before" "$(memory VmHWM)" \
    "$(memory VmRSS)"
printf 'one plugin more of it, ms, least and median: %s\n' "$(get /vm)"
quit_nginx

cp "$dir/template.conf" "$dir/nginx.conf"
: >"$dir/error.log"
python3 "$root/bench/module.py" "${SHARED_MIB:-10}" >"$dir/large.wasm"
printf '\nfour workers, a module of %d bytes\n' "$(stat -c %s "$dir/large.wasm")"
sed -i 's#^        -- Measures the worker#        ngx.timer.at(0, function() plugin = assert(wasm.load("large", "'"$dir"'/large.wasm", { background = true })) end)\n&#' \
    "$dir/nginx.conf"
serve 4
until [[ $(grep -c 'compiled in\|shared with another' "$dir/error.log") == 4 ]]; do
    sleep 0.2
done
grep -o 'wasm plugin "large": .*ms' "$dir/error.log"
printf '%-8s %12s %12s %12s %26s\n' pid "RSS KiB" "PSS KiB" "private KiB" "code: RSS, PSS KiB"
read -ra workers <"/proc/$master/task/$master/children" || true
for worker in "${workers[@]}"; do
    awk -v pid="$worker" '
        FILENAME ~ /rollup/ && /^Rss:/ { rss = $2 }
        FILENAME ~ /rollup/ && /^Pss:/ { pss = $2 }
        FILENAME ~ /rollup/ && /^Private_(Clean|Dirty):/ { private += $2 }
        FILENAME ~ /smaps$/ && /^[0-9a-f]+-[0-9a-f]+ / { code = /memfd:/ }
        FILENAME ~ /smaps$/ && code && /^Rss:/ { code_rss += $2 }
        FILENAME ~ /smaps$/ && code && /^Pss:/ { code_pss += $2 }
        END { printf "%-8s %12d %12d %12d %15d, %9d\n", pid, rss, pss, private, code_rss, code_pss }
    ' "/proc/$worker/smaps_rollup" "/proc/$worker/smaps"
done
# Behind the memory: those plugins take some of it.
printf 'one plugin more of it, ms, least and median: %s\n' "$(get /vm)"
[[ -z ${MODULE:-} ]] || printf 'one plugin more of %s, ms, least and median: %s\n' "$MODULE" "$(get "/vm?file=$MODULE")"
