#!/usr/bin/env bash
# What a filter costs: CPU time of an nginx worker per request, with and without one.
#
#   bench/run.sh [VARIANT...]
#
# Variants (default: all; a is always measured, for the ratios):
#   a        nginx's own `return 200`
#   b        plain Lua that sets a header in header_filter_by_lua
#   c-bare   a filter that does nothing; its context was configured once, in init_by_lua
#   d-bare   the same filter in the documented form: on_configure in every request
#   c-header a filter that adds a header, configured once
#   d-header the same, configured in every request
#   chain-1  the filter that does nothing, in a chain of one: chain:header_filter()
#   chain-5  a chain of five such filters
#   c-as     the filter of examples/add-header (AssemblyScript, public SDK), configured once
#   d-as     the same, configured in every request
#
# A real nginx has one worker, pinned to core 0; wrk loads it from core 1 over kept-alive connections. bench/measure.sh says
# how it is measured.
#
# Environment: ROUNDS (5), DURATION of a measurement in seconds (4), CONNECTIONS (16), PORT (8089), RPW_NGINX (nginx),
# LIBRARY_DIR (where the library is, such as that of a package).
# Needs a built library (./build.sh build), wrk, taskset, wat2wasm (Debian: wrk, util-linux, wabt), two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$root/bench/measure.sh"

variants=(a b c-bare d-bare c-header d-header chain-1 chain-5 c-as d-as)
if (($# > 0)); then
    variants=(a)
    for variant; do
        [[ $variant == a ]] || variants+=("$variant")
    done
fi

start_nginx
compare "${variants[@]}"
