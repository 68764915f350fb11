# Shared by the scripts of this directory, which source it: an nginx for measuring, and its worker's figures.
# shellcheck shell=bash
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
nginx=${RPW_NGINX:-nginx}
port=${PORT:-8089}
connections=${CONNECTIONS:-16}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Checks that the commands and the library are there, and makes a directory, which goes when the script ends, with a
# configuration from a template: prepare TEMPLATE COMMANDS... Sets dir.
prepare() {
    local command library_dir template=$1
    shift
    for command in "$nginx" "$@"; do
        command -v "$command" >/dev/null || die "$command is missing"
    done
    library_dir=${LIBRARY_DIR:-$("$root/tools/target-dir")/release}
    [[ -e $library_dir/libresty_proxy_wasm.so ]] || die "no library in $library_dir: run ./build.sh build first"

    # Another server would be measured in place of this one.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port is taken: choose another with PORT"
    fi

    dir=$(mktemp -d)
    trap stop_nginx EXIT
    trap 'exit 1' INT TERM
    chmod 755 "$dir"
    {
        "$root/tools/nginx-preamble" "$nginx"
        sed -e "s#@ROOT@#$root#" -e "s#@DIR@#$dir#" -e "s#@LIBRARY_DIR@#$library_dir#" -e "s#@PORT@#$port#" "$template"
    } >"$dir/nginx.conf"
}

# Starts nginx in that directory. Sets master.
launch() {
    "$nginx" -e stderr -p "$dir" -c "$dir/nginx.conf" &
    master=$!
}

# Starts nginx in a directory of its own, with its workers on core 0 if bench/nginx.conf, the default, is what it starts
# with. Sets master and worker, the first one.
#
#   start_nginx [CONFIGURATION [WAT...]]
start_nginx() {
    local wat
    prepare "${1:-$root/bench/nginx.conf}" wrk taskset wat2wasm
    for wat in "$root/t/guests/wat/bare.wat" "$root/bench/filters/header.wat" "${@:2}"; do
        wat2wasm -o "$dir/$(basename "$wat" .wat).wasm" "$wat"
    done
    launch
    worker=
    until [[ -n $worker ]] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        read -r worker _ <"/proc/$master/task/$master/children" 2>/dev/null || true
        kill -0 "$master" 2>/dev/null || die "nginx did not start"
        sleep 0.05
    done
}

# Ends nginx and keeps its directory.
quit_nginx() {
    if [[ -n ${master:-} ]]; then
        kill -QUIT "$master" 2>/dev/null || true
        wait "$master" || true
        master=
    fi
}

stop_nginx() {
    quit_nginx
    if [[ -s $dir/error.log && -z ${log_is_judged:-} ]]; then
        echo "nginx logged:" >&2
        head -3 "$dir/error.log" >&2
    fi
    rm -rf "$dir"
}

# wrk on the other core: load PATH ARGUMENTS...
load() {
    local path=$1
    shift
    taskset -c 1 wrk -t 1 -c "$connections" "$@" "http://127.0.0.1:$port$path"
}
