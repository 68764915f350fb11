#!/bin/sh
# Rebuilds build/release.wasm of an example in Rust, with Debian's Rust for wasm (rustc-web cargo-web rust-web-src lld-22)
# and the pinned SDK: build-rust.sh FOLDER.
set -eu
cd "$(dirname "$0")/$1"
name=$(printf %s "$1" | tr - _)
# Debian's toolchain before any other; it builds std for wasm, for which it needs unstable flags.
export PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$PWD/target"
cargo fetch --locked
# No path of the machine that built it gets into the module.
remap=
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    remap="$remap --remap-path-prefix=$sources=crates"
done
export RUSTFLAGS="-C linker=wasm-ld-22 -C link-self-contained=no$remap"
cargo build -Zbuild-std=std,panic_abort --release --locked --target wasm32-unknown-unknown
mkdir -p build
cp "$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/$name.wasm" build/release.wasm
chmod 644 build/release.wasm
