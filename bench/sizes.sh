#!/usr/bin/env bash
# What plugins, plugin contexts, streams and paused requests take of a worker's memory, and what a request costs a worker
# that has many of them.
#
#   bench/sizes.sh
#
# Memory is what the process has of its own and in memory (RssAnon), before and after so many of a kind are made, by so many.
# The filter is that of bench/filters/header.wat, with one page of memory; its contexts have a configuration of 10 bytes.
# Streams are counted with what one request keeps of them. Of a paused request (bench/pause.wat) that counts which a
# request that sleeps in Lua does not take: bytes that are allocated behind a full cycle of Lua's collector. A request's CPU
# time is that of the worker, user and system, of 30,000 requests behind each other.
#
# Environment: PORT (8089), RPW_NGINX (nginx). Needs a built library (./build.sh build), python3, wat2wasm (Debian: wabt).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

prepare "$root/bench/sizes.conf" wat2wasm python3
wat2wasm -o "$dir/header.wasm" "$root/bench/filters/header.wat"
wat2wasm -o "$dir/pause.wasm" "$root/bench/pause.wat"
ulimit -n 8192
launch
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$master" 2>/dev/null || die "nginx did not start"
    sleep 0.05
done
python3 "$root/bench/sizes.py" "$port" "$master"
