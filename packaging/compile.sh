# shellcheck shell=bash
# Compiles for one target. Sourced by dist.sh.

# The oldest glibc that packages run with: RHEL 7, Amazon Linux 2, Ubuntu 14.04 and all later ones have it.
glibc=2.17

# Compiles library and tool ($1: its package, or nothing) for the target $2. Sets the variables built, the folder where they
# are, and compiler, the version text of rustc.
compile() {
    local tool=$1 target=$2 zig_target=$2 cargo_home=${CARGO_HOME:-$HOME/.cargo} arguments flags sysroot source
    setup_toolchain "$target"
    compiler=$(with_toolchain rustc --version)
    built=$build/$target/dist
    if [[ $target == *-gnu ]]; then
        zig_target+=.$glibc
    fi
    # The same bytes wherever the checkout, cargo's downloads and the toolchain are.
    sysroot=$(with_toolchain rustc --print sysroot)
    flags="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$root=/src --remap-path-prefix=$build=/target"
    source=$sysroot/lib/rustlib/src/rust
    if [[ -e $source ]]; then
        flags+=" --remap-path-prefix=$source=/rust --remap-path-prefix=$(readlink -f "$source")=/rust"
    fi
    if [[ $target == *-musl ]]; then
        # nginx on such a system is linked with musl, and so must the library be, not have one of its own. cargo-zigbuild links
        # programs statically all the same.
        flags+=" -Ctarget-feature=-crt-static"
    fi
    export "CFLAGS_${target//-/_}=-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$build=/target"
    arguments=(--locked --profile dist --target "$zig_target" --target-dir "$build")
    if [[ -n $toolchain ]]; then
        arguments+=(-Zbuild-std=std,panic_unwind)
    fi

    say "library for $target ($compiler)"
    # As a cdylib alone: cargo optimizes nothing at link time where the crate is a Rust library, too.
    RUSTFLAGS=$flags with_toolchain "$zigbuild" rustc "${arguments[@]}" --lib --crate-type cdylib
    if [[ -n $tool ]]; then
        say "tool for $target"
        RUSTFLAGS=$flags with_toolchain "$zigbuild" zigbuild "${arguments[@]}" --package "$tool" --bin proxy-wasm
    fi
}

# Copies a program or a library $1 to $2 without symbols, and these to $3, where debuggers find them by name.
without_symbols() {
    mkdir -p "${2%/*}" "${3%/*}"
    llvm-objcopy --only-keep-debug "$1" "$3"
    (cd "${3%/*}" && llvm-objcopy --strip-all "--add-gnu-debuglink=${3##*/}" "$1" "$2")
}
