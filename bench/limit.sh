#!/usr/bin/env bash
# One limit over two nginx of two workers each, and what it costs them when Redis is gone.
#
#   bench/limit.sh [SECONDS]   (default: 60)
#
# The filter is that of examples/redis-rate-limit. First, so many seconds of load on both nginx for one client, whose limit is
# LIMIT requests (20000): how many got through. It fails when that is another number. Then four times thirty seconds of load
# below the limit, in each of which redis-server is killed after ten seconds and comes back after twenty: how many requests failed, and
# what the workers' memory is after each. It fails when a request did, or when the fourth leaves the workers with more than
# 2 MiB more than the second.
#
# Environment and needs are those of bench/run.sh, and redis-server, REDIS_PORT (8090).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

limit=${LIMIT:-20000}
seconds=${1:-60}
redis_port=${REDIS_PORT:-8090}
template=$(mktemp)
dirs=() masters=() redis=

start_redis() {
    redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null &
    redis=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$redis_port") 2>/dev/null; do
        kill -0 "$redis" 2>/dev/null || die "redis-server did not start"
        sleep 0.05
    done
}

kill_redis() {
    kill -9 "$redis" 2>/dev/null || true
    wait "$redis" 2>/dev/null || true
}

end() {
    kill_redis
    for master in "${masters[@]}"; do
        quit_nginx
    done
    rm -rf "${dirs[@]}" "$template"
}

# Begins load on both: both PATH SECONDS. Sets loads.
both() {
    local path=$1 time=$2 at
    for at in 0 1; do
        wrk -t 1 -c "$connections" --timeout 30s -d "${time}s" -H 'X-Client: one' "http://127.0.0.1:$((port + 10 * at))$path" \
            >"${dirs[at]}/wrk" &
        loads[at]=$!
    done
}

# What wrk says of both together: total, and refused or failed.
count() {
    cat "${dirs[@]/%//wrk}" | awk '
        /requests in/ { total += $1 }
        /Non-2xx/ { bad += $NF }
        /Socket errors/ { for (i = 4; i <= NF; i += 2) bad += $i }
        END { print total + 0, bad + 0 }'
}

memory() {
    local master pid sum=0
    for master in "${masters[@]}"; do
        for pid in $(<"/proc/$master/task/$master/children"); do
            sum=$((sum + $(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")))
        done
    done
    echo "$sum"
}

command -v redis-server >/dev/null || die "redis-server is missing"
sed -e "s#@REDIS@#$redis_port#" -e "s#@LIMIT@#$limit#" "$root/bench/limit.conf" >"$template"
start_redis
for at in 0 1; do
    port=$((${PORT:-8089} + 10 * at))
    prepare "$template" wrk
    dirs+=("$dir")
    launch
    masters+=("$master")
    trap end EXIT
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$master" 2>/dev/null || die "nginx did not start"
        sleep 0.05
    done
done
port=${PORT:-8089}
loads=()

both /few "$seconds"
wait "${loads[@]}"
read -r total refused < <(count)
printf 'limit %d, %d s: %d requests, %d through\n' "$limit" "$seconds" "$total" $((total - refused))
((total - refused == limit)) || die "another number got through"

for round in 1 2 3 4; do
    both /all 30
    sleep 10
    kill_redis
    sleep 10
    start_redis
    wait "${loads[@]}"
    read -r total failed < <(count)
    kib=$(memory)
    printf 'round %d, Redis gone for 10 s of 30: %d requests, %d failed, the workers have %d KiB\n' \
        "$round" "$total" "$failed" "$kib"
    ((failed == 0)) || die "requests failed"
    if ((round == 2)); then
        before=$kib
    fi
done
((kib - before <= 2048)) || die "memory grew by $((kib - before)) KiB"
