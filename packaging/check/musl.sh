# shellcheck shell=bash
# The library for systems with musl, by Debian's musl. Sourced by check.sh.

check_musl() {
    local library
    say "musl"
    # zig would link the probe statically, or with a musl that is newer than Debian's.
    command_from musl-gcc musl-tools
    mkdir -p "$work/probe"
    musl-gcc -o "$work/probe/musl" packaging/check/probe.c
    library=$(unpacked lua-resty-proxy-wasm "$1")/libresty_proxy_wasm.so
    "$work/probe/musl" "$library"
    "$(unpacked proxy-wasm "$1")/bin/proxy-wasm" run examples/add-header/build/release.wasm --root-id add_header -c add_header |
        grep "hello: add_header" ||
        die "the command does not run the demo's filter"
    check_busybox "$1"
}
