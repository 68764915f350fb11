#!/usr/bin/env bash
# Builds, shows, tests and installs the library. Run it without arguments for the list of commands.
set -euo pipefail

# Debian keeps nginx where ordinary users have no PATH to.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD

usage() {
    cat <<'EOF'
Usage: ./build.sh COMMAND

  build             the library, libresty_proxy_wasm.so, in release form
  cli [DIR]         the command proxy-wasm, completions for shells and its manual pages, in DIR (default: target/cli)
  run [--once]      sets everything up, builds, starts the demo (conf/nginx.conf) on 127.0.0.1:8080, prints what it
                    answers and serves until Ctrl-C; with --once it stops after the show
  test [ARGS...]    all tests, those against a real nginx too; or what ARGS pick (as for cargo test)
  fuzz [TARGET] [SECONDS] [-OPTION...]
                    fuzzing: all targets or one, a minute or SECONDS each; OPTIONs are libFuzzer's. See fuzz/README.md
  valgrind [NAME]   the tests against nginx whose names hold NAME (default: smoke), nginx under valgrind
  check             formatting, lints, generated files
  generate          renews the C header and its LuaJIT declarations from src/ffi
  install [--force] [--remove] [PREFIX]
                    library, Lua files and header, below OpenResty's folder or /usr/local; packaging/install.sh --help
  dist [--check] [TARGET...]
                    packages for each TARGET in target/dist/, see docs/releasing.md; --check tries those that are there
  instructions [ARGS...]
                    counts the instructions that filters cost nginx for each request and compares them with their budgets:
                    see bench/instructions.sh
  bench [ARGS...]   requests against nginx with and without a filter: see bench/run.sh, and bench/memory.sh, bench/start.sh
                    and bench/soak.sh for memory, the time to start, and abuse

Environment:
  PORT              the demo's port
  RPW_NGINX         the nginx to use; else openresty, else nginx from PATH, else Debian's packages are installed
  CARGO_TARGET_DIR  where cargo builds
  DESTDIR, LUADIR, LIBDIR, INCLUDEDIR    for packagers: install below DESTDIR, or into exactly these directories
EOF
}

# shellcheck source=tools/common.sh
source tools/common.sh

# Sets RPW_NGINX to an nginx that can run Lua, if this machine has one.
find_nginx() {
    local candidate
    for candidate in "${RPW_NGINX:-}" openresty /usr/local/openresty/nginx/sbin/nginx nginx; do
        if [[ -n $candidate ]] && command -v "$candidate" >/dev/null &&
            tools/nginx-preamble "$candidate" >/dev/null 2>&1; then
            RPW_NGINX=$(command -v "$candidate")
            export RPW_NGINX
            return
        fi
    done
    return 1
}

setup_nginx() {
    if [[ -n ${RPW_NGINX:-} ]]; then
        tools/nginx-preamble "$RPW_NGINX" >/dev/null
    elif ! find_nginx; then
        packages nginx libnginx-mod-http-lua lua-resty-core
        find_nginx || die "nginx has no Lua"
    fi
}

setup_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs)"
    # Rust links with a C compiler, against the C library.
    if ! command -v cc >/dev/null || [[ ! -e /usr/include/stdlib.h ]]; then
        packages gcc libc6-dev
    fi
}

library() {
    echo "$(tools/target-dir)/release/libresty_proxy_wasm.so"
}

build() {
    setup_rust
    cargo build --release
    echo "built $(library)"
}

# The command proxy-wasm with what belongs to it, laid out as below a prefix.
cli() {
    setup_rust
    cargo build --release -p proxy-wasm
    local dir=${1:-target/cli} command
    command=$(tools/target-dir)/release/proxy-wasm
    install -D -m 755 "$command" "$dir/bin/proxy-wasm"
    mkdir -p "$dir/share/man/man1" "$dir/share/bash-completion/completions" "$dir/share/zsh/site-functions" \
        "$dir/share/fish/vendor_completions.d"
    "$command" man "$dir/share/man/man1"
    "$command" completions bash >"$dir/share/bash-completion/completions/proxy-wasm"
    "$command" completions zsh >"$dir/share/zsh/site-functions/_proxy-wasm"
    "$command" completions fish >"$dir/share/fish/vendor_completions.d/proxy-wasm.fish"
    echo "built $dir"
}

# Writes what conf/nginx.conf includes.
prepare_demo() {
    mkdir -p target/demo
    tools/nginx-preamble "$RPW_NGINX" >target/demo/main.conf
}

fetch() {
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    cat <&3
    exec 3>&-
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

run() {
    local once='' port=${PORT:-8080}
    case ${1:-} in
    --once) once=1 ;;
    ?*) die "run takes --once or nothing" ;;
    esac
    setup_nginx
    build
    prepare_demo
    if answers "$port"; then
        die "port $port is taken: choose another with PORT=8081 ./build.sh run"
    fi
    sed -e "s#127.0.0.1:8080#127.0.0.1:$port#" -e "s#\$prefix/target/release#$(tools/target-dir)/release#" \
        conf/nginx.conf >target/demo.conf

    say "starting $RPW_NGINX on 127.0.0.1:$port"
    "$RPW_NGINX" -e stderr -p "$root" -c target/demo.conf </dev/null &
    nginx=$!
    trap 'kill -QUIT $nginx 2>/dev/null || true; wait $nginx || true' EXIT
    trap 'exit 0' INT TERM
    until answers "$port"; do
        kill -0 "$nginx" 2>/dev/null || die "nginx did not start"
        sleep 0.05
    done

    local path answer shown=
    for path in /t /d; do
        say "GET $path"
        answer=$(fetch "$port" "$path" | tr -d '\r')
        printf '%s\n' "$answer"
        shown+=$(grep -i '^hello: ' <<<"$answer" || true)
    done
    if [[ ${shown,,} != "hello: add_headerhello: add_header" ]]; then
        die "the demo did not add its header"
    fi
    if [[ -z $once ]]; then
        say "serving http://127.0.0.1:$port/t and /d until Ctrl-C"
        wait "$nginx"
    fi
}

run_tests() {
    setup_rust
    setup_nginx
    # The tests of TLS make their certificates with it.
    command_from openssl openssl
    # The client of HTTP/2.
    command_from curl curl
    # A registry for the command that pulls filters, and its passwords.
    command_from docker-registry docker-registry
    command_from htpasswd apache2-utils
    # Redis calls are made to it.
    command_from redis-server redis-server
    # The status page is looked at in a browser.
    command_from chromedriver chromium-driver
    # That of gRPC, and Prometheus' own parser.
    python3 -c 'import ensurepip' 2>/dev/null || packages python3 python3-venv
    tools/python >/dev/null
    # Those against nginx wait more than they compute.
    export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 5 / 2))}
    if (($# > 0)); then
        cargo test --release "$@"
    else
        # In one command: cargo chooses the features of crates for all that it builds at once, and builds a crate again when
        # the next command wants others.
        cargo test --release --workspace
    fi
}

under_valgrind() {
    setup_rust
    setup_nginx
    command_from valgrind valgrind
    local tests
    tests=$(nginx_tests)
    # One nginx after the other: under valgrind each takes a core for itself.
    RPW_VALGRIND=1 "$tests" --test-threads=1 "${1:-smoke::}"
}

fuzz() {
    local target targets seconds=60 limits=()
    targets=(fuzz/targets/*.rs)
    targets=("${targets[@]##*/}")
    targets=("${targets[@]%.rs}")
    if [[ ${1:-} == [a-z]* ]]; then
        [[ -e fuzz/targets/$1.rs ]] || die "no fuzz target $1; there are: ${targets[*]}"
        targets=("$1")
        shift
    fi
    if [[ ${1:-} == [0-9]* ]]; then
        seconds=$1
        shift
    fi
    # Who counts executions does not want to be stopped by the clock.
    [[ " $*" == *" -runs="* ]] || limits=("-max_total_time=$seconds")
    setup_rust
    # libFuzzer is C++.
    command_from c++ g++
    command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
    say "building"
    RUSTC_WRAPPER=$root/fuzz/rustc-wrapper cargo fuzz build -O --sanitizer none
    for target in "${targets[@]}"; do
        say "$target"
        # What it learns stays out of the corpus that is committed.
        mkdir -p "target/fuzz/$target" "fuzz/artifacts/$target"
        RUSTC_WRAPPER=$root/fuzz/rustc-wrapper cargo fuzz run -O --sanitizer none "$target" \
            "target/fuzz/$target" "fuzz/corpus/$target" -- \
            -max_len=2048 -timeout=10 -print_final_stats=1 "${limits[@]}" "$@"
    done
}

# Prints the packages that tests would have built again, because they turn features on that the product does not have.
built_twice() {
    local tree=(cargo tree --prefix none -f '{p} {f}')
    # The two crates of this repository have the feature of the simulated host in tests only.
    "${tree[@]}" -e normal,build,dev | sed 's/ ([*])$//' | sort -u | grep -vE '^(resty-proxy-wasm|proxy-wasm-host) ' |
        awk 'NR == FNR { product[$1, $2] = 1; line[$0] = 1; next } (($1, $2) in product) && !($0 in line)' \
            <("${tree[@]}" -e normal,build | sed 's/ ([*])$//' | sort -u) -
}

check() {
    setup_rust
    command_from luacheck lua-check
    # First, since all else that cargo does here renews them.
    say "lock files"
    local manifest
    for manifest in Cargo.toml fuzz/Cargo.toml loom/Cargo.toml t/grpc/tonic/Cargo.toml; do
        cargo tree --locked --manifest-path "$manifest" >/dev/null ||
            die "the Cargo.lock beside $manifest has not followed: cargo tree --manifest-path $manifest renews it"
    done
    say "formatting"
    cargo fmt --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
    cargo fmt --manifest-path loom/Cargo.toml --check
    cargo fmt --manifest-path t/grpc/tonic/Cargo.toml --check
    say "clippy"
    cargo clippy --release --all-targets -- -D warnings
    cargo clippy --release --all-targets -p proxy-wasm-host -p nginx-variables -- -D warnings
    cargo clippy --release --all-targets -p proxy-wasm -- -D warnings
    cargo clippy --release --all-targets -p rpw-bindgen -- -D warnings
    say "orders of loads and stores of the lock"
    cargo run --quiet --release --locked --manifest-path loom/Cargo.toml --target-dir target/loom
    say "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps -p resty-proxy-wasm -p proxy-wasm-host
    say "features"
    local twice
    twice=$(built_twice)
    if [[ -n $twice ]]; then
        echo "$twice"
        die "tests and product use these with other features: name them in Cargo.toml, as the ones there"
    fi
    say "luacheck"
    luacheck --quiet lib
    say "generated files"
    cargo run --quiet --release -p rpw-bindgen -- --check
    echo "up to date"
}

generate() {
    setup_rust
    cargo run --quiet --release -p rpw-bindgen
}

install_files() {
    # With sudo there is often no cargo; then what was built before is installed.
    export RPW_LIBRARY=$root/target/release/libresty_proxy_wasm.so
    if command -v cargo >/dev/null; then
        build
        RPW_LIBRARY=$(library)
    fi
    packaging/install.sh "$@"
}

main() {
    local command=${1:-help}
    shift || true
    case $command in
    build)
        build
        if find_nginx; then prepare_demo; fi
        ;;
    cli) cli "$@" ;;
    run) run "$@" ;;
    test) run_tests "$@" ;;
    fuzz) fuzz "$@" ;;
    valgrind) under_valgrind "$@" ;;
    check) check ;;
    generate) generate ;;
    install) install_files "$@" ;;
    dist) packaging/dist.sh "$@" ;;
    instructions)
        setup_nginx
        build
        command_from valgrind valgrind
        command_from wat2wasm wabt
        bench/instructions.sh --check "$@"
        ;;
    bench)
        setup_nginx
        build
        command_from wrk wrk
        command_from wat2wasm wabt
        bench/run.sh "$@"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        die "unknown command $command"
        ;;
    esac
}

# In one line, so that bash has read all of it before anything runs, and the file may change meanwhile.
main "$@"; exit
