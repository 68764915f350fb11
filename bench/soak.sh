#!/usr/bin/env bash
# Good filters beside bad ones, for a while: does anything get hurt?
#
#   bench/soak.sh [MINUTES]        (default: 10)
#   bench/soak.sh loop [SECONDS]   (default: 30)
#
# The first starts a real nginx with two workers. Some locations have good filters, and every answer of theirs is checked;
# others have filters that trap, loop, panic, end themselves, eat memory, or ask the host to hold things without end. In
# the first half nginx is reloaded and its workers are killed at random; in the second half they are left alone, so that
# what grows shows. It fails when a worker ended that was not killed, when a good request failed, or when the memory,
# threads or descriptors of a process grew. A request whose worker was killed is sent again, and counted.
#
# The second has a filter in an endless loop on one worker, over and over. It fails when a request to the other worker
# fails, or when one to the same worker does, and prints how long they took.
#
# bench/soak.conf is the configuration, bench/soak.py the client and the judge. Environment: PORT, RPW_NGINX, as for
# bench/run.sh, SEED for the random choices. Needs a built library (./build.sh build), python3, wat2wasm, wrk.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The judge reads it, and what bad filters make nginx log is expected.
log_is_judged=1
command -v python3 >/dev/null || die "python3 is missing"
start_nginx "$root/bench/soak.conf" "$root/bench/eat.wat" "$root/bench/hog.wat"
case ${1:-} in
    loop) mode=(loop "${2:-30}") ;;
    *) mode=(soak "${1:-10}") ;;
esac
python3 "$root/bench/soak.py" "$port" "$master" "$dir/error.log" "${mode[@]}"
