# shellcheck shell=bash
# The compilers and the tools that make packages. Sourced by dist.sh; everything is put below $tools and nothing else of
# the machine changes.

zig_version=0.17.1
zigbuild_version=0.24.1
deb_version=3.8.0

# zig is the linker and the C compiler: it has the symbols of each release of glibc, musl, and every processor. It and
# cargo-zigbuild come from PyPI, which has them built.
setup_zig() {
    if [[ ! -e $tools/zig-$zig_version-$zigbuild_version ]]; then
        say "zig $zig_version, cargo-zigbuild $zigbuild_version"
        python3 -m venv --clear "$tools/zig"
        "$tools/zig/bin/pip" install --quiet --disable-pip-version-check \
            "ziglang==$zig_version" "cargo-zigbuild==$zigbuild_version"
        touch "$tools/zig-$zig_version-$zigbuild_version"
    fi
    CARGO_ZIGBUILD_ZIG_PATH=$(echo "$tools"/zig/lib/python*/site-packages/ziglang/zig)
    export CARGO_ZIGBUILD_ZIG_PATH
    zigbuild=$tools/zig/bin/cargo-zigbuild
}

setup_cargo_deb() {
    if [[ $("$tools/bin/cargo-deb" --version 2>/dev/null) != *"$deb_version" ]]; then
        say "cargo-deb $deb_version"
        cargo install --quiet --locked --root "$tools" --target-dir "$tools/target" "cargo-deb@$deb_version"
    fi
    PATH=$tools/bin:$PATH
}

# Sets the variable toolchain to the folder of a toolchain that builds for a target, or to nothing when the one in PATH has
# the target's standard library.
setup_toolchain() {
    if [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]]; then
        toolchain=
        return
    fi
    toolchain=$tools/rust/usr
    if [[ ! -e $toolchain/bin/cargo ]]; then
        unpack_debian_toolchain "$1"
    fi
}

# Debian's rustc-web, cargo-web and rust-web-src: a compiler, and the sources of the standard library that it was built
# with, for the target $1. They cannot be installed beside rustup, so they are unpacked.
unpack_debian_toolchain() {
    local package packages
    say "rustc-web, cargo-web, rust-web-src of Debian"
    command -v apt-get >/dev/null ||
        die "rustc has no standard library for $1: rustup target add $1, or build on Debian, whose rust-web-src has it"
    mkdir -p "$tools/debs" "$tools/rust"
    # What they depend on that is not installed here; the names of libraries have versions in them.
    packages=$(apt-get install --simulate --no-install-recommends rustc-web cargo-web rust-web-src |
        sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086
    (cd "$tools/debs" && apt-get download -q $packages)
    for package in "$tools"/debs/*.deb; do
        dpkg-deb --extract "$package" "$tools/rust"
    done
    rm -r "$tools/debs"
}

# Runs a command with that toolchain. RUSTC_BOOTSTRAP is for -Zbuild-std: the compiler is a stable one, and so is its
# standard library; only cargo's way to build it is not.
with_toolchain() {
    if [[ -z $toolchain ]]; then
        "$@"
    else
        env PATH="$toolchain/bin:$PATH" RUSTC="$toolchain/bin/rustc" RUSTC_BOOTSTRAP=1 \
            LD_LIBRARY_PATH="$(echo "$toolchain"/lib/*-linux-gnu)" "$@"
    fi
}
