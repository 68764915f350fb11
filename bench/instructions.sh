#!/usr/bin/env bash
# What a filter costs in instructions: those that nginx's thread executes in user space for each request, by callgrind. The
# figures repeat to about 1 %, whatever else the machine does.
#
#   bench/instructions.sh [--objects] [--functions] [--check] [ROW...]
#
# Each row is a location of bench/instructions.conf. What is printed is what the row adds to its base:
#   lua        plain Lua sets a header in header_filter_by_lua              added to bare, nginx's `return 200 "ok"`
#   once       a filter adds a header; its context was made once            added to bare
#   each       the same with on_configure in each request                   added to bare
#   script     the filter of examples/add-header (AssemblyScript), once     added to bare
#   chain5     five of the filters that add a header, in a chain            added to bare
#   nothing    a filter whose callback does nothing                         added to bare
#   calls100   100 calls of a host function that does nothing               added to nothing
#   headers20  a response header is read by its name 20 times               added to nothing
#   property20 a property is read 20 times                                  added to nothing
#   shared     one get and one set of shared data                           added to nothing
#   metric     one increment of a metric                                    added to nothing
#   body       a filter reads a body of 64 KiB                              added to the same response without it
#   call       a filter makes an HTTP call and waits for it                 added to an empty content_by_lua
#   grpc       a filter makes a gRPC call and waits for it                  added to an empty content_by_lua
#   grpc100    100 of these at once, on one connection                      added to an empty content_by_lua
#
#   --objects    shows the shared objects that take most of each row
#   --functions  shows the functions that take most of each row
#   --check      fails when a row passes its budget in bench/instructions.budget by more than it may vary, in each of four
#                processes. Each nginx has its own figures: with another one than that of the budgets nothing is judged.
#                Without ROWs those that have a budget are counted
#
# Environment: REQUESTS that are counted (500; of `each` eight times as many, for whole cycles of Lua's collector), WARM_UP
# requests before (2000; LuaJIT compiles meanwhile), PORT (8089), RPW_NGINX (nginx), LIBRARY_DIR (where the library is, such
# as that of a package; the built one). Needs a built library (./build.sh build), valgrind, python3, wat2wasm (Debian:
# valgrind, python3, wabt).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

requests=${REQUESTS:-500}
warm_up=${WARM_UP:-2000}
shown=() check= rows=()
for argument; do
    case $argument in
    --objects | --functions) shown+=("${argument#--}") ;;
    --check) check=1 ;;
    -*) die "unknown option $argument" ;;
    *) rows+=("$argument") ;;
    esac
done
declare -A bases=([calls100]=nothing [headers20]=nothing [property20]=nothing [shared]=nothing [metric]=nothing [body]=piece [call]=content [grpc]=content [grpc100]=content)
declare -A counted=() counts=()
tool() { python3 "$root/bench/instructions.py" "$@"; }

start_upstream() {
    # A message of gRPC: not compressed, 16 bytes.
    sed -e "s#@DIR@#$dir#" -e 's#@MESSAGE@#\x00\x00\x00\x00\x10#' "$root/bench/upstream.conf" >"$dir/upstream.conf"
    "$nginx" -e stderr -p "$dir" -c "$dir/upstream.conf" &
    upstream=$!
    until [[ -S $dir/upstream.sock ]]; do
        kill -0 "$upstream" 2>/dev/null || die "the upstream did not start"
        sleep 0.05
    done
}

stop_all() {
    if [[ -n ${upstream:-} ]]; then
        kill -QUIT "$upstream" 2>/dev/null || true
        wait "$upstream" || true
    fi
    stop_nginx
}

# Switches counting on or off: instrument STATE ROW. valgrind hears of it when nginx does something, so requests are sent
# meanwhile.
instrument() {
    callgrind_control -i "$1" "$master" >/dev/null 2>&1 &
    local control=$!
    while kill -0 "$control" 2>/dev/null; do
        tool send "$port" "/$2" 1
    done
    wait "$control" || die "callgrind_control failed"
}

# Counts the instructions of one request of a row. Sets counted[ROW].
count() {
    local row=$1 total
    local sent=$requests
    # Its contexts are garbage, and a cycle of the collector takes more than a thousand requests.
    [[ $row != each ]] || sent=$((requests * 8))
    sed -e "s#@ROW@#$row#" "$dir/nginx.conf" >"$dir/row.conf"
    rm -f "$dir"/callgrind.out*
    valgrind --tool=callgrind --separate-threads=yes --instr-atstart=no --callgrind-out-file="$dir/callgrind.out" --log-file="$dir/valgrind.log" \
        "$nginx" -e stderr -p "$dir" -c "$dir/row.conf" &
    master=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$master" 2>/dev/null || die "nginx did not start: $(tail -n 3 "$dir/valgrind.log" "$dir/error.log")"
        sleep 0.1
    done
    tool send "$port" "/$row" "$warm_up"
    instrument on "$row"
    tool send "$port" "/$row" "$sent"
    instrument off "$row"
    # One that comes just before nginx begins to wait for events does not end that wait.
    while kill -TERM "$master" 2>/dev/null; do sleep 0.2; done
    wait "$master" || true
    master=
    # The other thread is the library's clock, which ticks the more the slower all else is.
    mv "$dir/callgrind.out-01" "$dir/callgrind.out"
    total=$(awk '/^(summary|totals):/ { total = $2 } END { print total }' "$dir/callgrind.out")
    [[ $total -gt 0 ]] || die "callgrind counted nothing for $row"
    counts[$row]=$sent
    counted[$row]=$((total / sent))
}

prepare "$root/bench/instructions.conf" valgrind callgrind_control python3 wat2wasm
trap stop_all EXIT

server=$("$nginx" -v 2>&1 | sed 's/.*: //')
of_budgets=$(sed -n 's/^nginx //p' "$root/bench/instructions.budget")
if [[ -n $check && $server != "$of_budgets" ]]; then
    echo "not judged: the budgets are those of $of_budgets, and this is $server"
    check=
fi
if [[ -n $check ]] && ((${#rows[@]} == 0)); then
    # Those that have a budget.
    mapfile -t rows < <(awk '/^[a-z]/ && $1 != "nginx" { print $1 }' "$root/bench/instructions.budget")
fi
((${#rows[@]} > 0)) || rows=(lua once each script chain5 nothing calls100 headers20 property20 shared metric body call grpc grpc100)

for wat in "$root"/bench/filters/*.wat "$root/t/guests/wat/one_call.wat"; do
    wat2wasm -o "$dir/$(basename "$wat" .wat).wasm" "$wat"
done
start_upstream

# Counts rows, and their bases where these were not counted yet: measure ROW...
measure() {
    local row base added what
    for row; do
        base=${bases[$row]:-bare}
        [[ -n ${counted[$base]:-} ]] || count "$base"
        [[ -n ${counted[$row]:-} ]] || count "$row"
        added=$((counted[$row] - counted[$base]))
        printf '%-10s %12d %12d\n' "$row" "${counted[$row]}" "$added"
        echo "$row $added ${counted[$row]}" >>"$dir/figures"
        for what in "${shown[@]}"; do
            callgrind_annotate --auto=no --show-percs=no --threshold=100 "$dir/callgrind.out" | tool "$what" "${counts[$row]}"
        done
    done
}

printf '%-10s %12s %12s\n' row "a request" added
measure "${rows[@]}"
judge() { tool judge "$root/bench/instructions.budget" "$dir/figures"; }
if [[ -n $check ]]; then
    over=$(judge)
    # LuaJIT chooses by chance what it compiles. Some processes therefore take more instructions for each request than others
    # do. A change that makes a row dearer does so in every process.
    for ((again = 0; again < 3; again++)); do
        [[ -n $over ]] || break
        mapfile -t rows < <(cut -d ' ' -f 1 <<<"$over")
        printf 'counted again: %s\n' "${rows[*]}"
        counted=()
        measure "${rows[@]}"
        over=$(judge)
    done
fi
if [[ -s $dir/error.log ]]; then
    die "nginx logged: $(head -3 "$dir/error.log")"
fi
if [[ -n $check ]]; then
    [[ -z $over ]] || die "$over"
    echo "within the budgets"
fi
