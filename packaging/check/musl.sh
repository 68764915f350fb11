# shellcheck shell=bash
# The library for systems with musl, by Debian's musl. Sourced by check.sh.

check_musl() {
    local library
    say "musl"
    command_from /lib/ld-musl-x86_64.so.1 musl
    library=$(unpacked lua-resty-proxy-wasm "$1")/libresty_proxy_wasm.so
    /lib/ld-musl-x86_64.so.1 "$(probe_for x86_64-linux-musl)" "$library"
    check_busybox "$1"
}
