#!/usr/bin/env bash
# What a filter's Redis call costs: CPU time of an nginx worker per request, beside a GET by other means.
#
#   bench/redis.sh
#
# Variants; each gets the same 16 bytes from the same server over a connection that is kept, then answers 200:
#   resty     lua-resty-redis, where nginx's Lua finds it (lua_package_path has /usr/share/lua and the like; RESTY=DIR adds one)
#   socket    the least that a client in Lua must do: connect from the pool, send, receive a line and a value, keep
#   filter    a filter that pauses, asks by proxy_redis_call, reads the answer, and lets the request go on
#   bare      none of them, for comparison
#
# A real nginx has one worker, pinned to core 0; wrk and redis-server share core 1. bench/measure.sh says how it is measured.
# Environment and needs are those of bench/run.sh, and redis-server (Debian: redis-server), REDIS_PORT (8090).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$root/bench/measure.sh"

redis_port=${REDIS_PORT:-8090}
command -v redis-server >/dev/null || die "redis-server is missing"
taskset -c 1 redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null &
redis=$!
configuration=$(mktemp)
trap 'kill "$redis" 2>/dev/null || true; rm -f "$configuration"' EXIT
until (exec 3<>"/dev/tcp/127.0.0.1/$redis_port") 2>/dev/null; do
    kill -0 "$redis" 2>/dev/null || die "redis-server did not start"
    sleep 0.05
done
exec 3<>"/dev/tcp/127.0.0.1/$redis_port"
printf 'SET key 0123456789abcdef\r\n' >&3
read -r answer <&3
[[ $answer == +OK* ]] || die "redis-server answers $answer"
exec 3>&-

sed -e "s#@REDIS@#$redis_port#" -e "s#lib/?.lua;;#lib/?.lua;${RESTY:+$RESTY/?.lua;};#" "$root/bench/redis.conf" \
    >"$configuration"
start_nginx "$configuration" "$root/bench/redis_get.wat"
trap 'stop_nginx; kill "$redis" 2>/dev/null || true; rm -f "$configuration"' EXIT

variants=(socket filter bare)
if load /resty -d 1s 2>/dev/null | grep -q 'Non-2xx'; then
    echo "lua-resty-redis was not found: the ratios are to the least client in Lua" >&2
    : >"$dir/error.log"
else
    variants=(resty "${variants[@]}")
fi
compare "${variants[@]}"
