#!/usr/bin/env bash
# What a filter's HTTP call costs: CPU time of an nginx worker per request, beside the same call by other means.
#
#   bench/call.sh
#
# Variants; each gets the same answer of 16 bytes from the same upstream over a kept-alive connection, then answers 200:
#   capture   ngx.location.capture of a location with proxy_pass
#   call      a filter that pauses, calls by proxy_http_call, and lets the request go on with the response
#   bare      neither, for comparison
#
# A real nginx has one worker, pinned to core 0; wrk and the upstream, another nginx, share core 1. bench/measure.sh says how
# it is measured. Environment and needs are those of bench/run.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$root/bench/measure.sh"

start_nginx "$root/bench/call.conf" "$root/t/guests/wat/one_call.wat"
# Its own master, in the same directory.
sed -e "s#@DIR@#$dir#" "$root/bench/upstream.conf" >"$dir/upstream.conf"
"$nginx" -e stderr -p "$dir" -c "$dir/upstream.conf" &
upstream=$!
trap 'kill -QUIT $upstream 2>/dev/null; wait $upstream; stop_nginx' EXIT
until [[ -S $dir/upstream.sock ]]; do sleep 0.05; done

compare capture call bare
