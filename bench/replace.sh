#!/usr/bin/env bash
# Replaces the module of a filter again and again while requests run, and shows what they and the memory saw of it.
#
#   bench/replace.sh
#
# Every tenth replacement is by a module that refuses its configuration, or that does not start. The table shows the requests,
# how many of them failed, the longest one, and the memory of the oldest worker after a tenth of the replacements and at the
# end. First with one worker, then with two, of which the younger is killed at every tenth replacement: a connection that it
# takes with it is made again, and each answer must be one of a module's.
#
# Environment: REPLACEMENTS (1000) of each part, PORT (8089), RPW_NGINX (nginx).
# Needs a built library (./build.sh build), python3, wat2wasm.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The log says of each replacement that fails why, and of each worker that was killed.
log_is_judged=1
replacements=${REPLACEMENTS:-1000}
prepare "$root/bench/replace.conf" python3 wat2wasm
cp "$dir/nginx.conf" "$dir/template.conf"
for value in first! second; do
    sed "s/world!/$value/" "$root/t/guests/wat/bare.wat" >"$dir/filter.wat"
    wat2wasm -o "$dir/${value%!}.wasm" "$dir/filter.wat"
done
wat2wasm -o "$dir/refuses.wasm" "$root/t/guests/wat/configure_false.wat"
wat2wasm -o "$dir/traps.wasm" "$root/t/guests/wat/start_section_trap.wat"

part() {
    sed "s/@WORKERS@/$1/" "$dir/template.conf" >"$dir/nginx.conf"
    launch
    python3 "$root/bench/replace.py" "$port" "$dir" "$master" "$1" "$2"
    quit_nginx
}

part 1 "$replacements"
part 2 "$replacements"
