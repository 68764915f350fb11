#!/usr/bin/env bash
# Makes the packages of a release, or tries those that are there. docs/releasing.md has the steps of a release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
umask 022
export LC_ALL=C

for part in tools/common.sh packaging/{files,toolchain,compile,packages}.sh; do
    # shellcheck source=/dev/null
    source "$part"
done

usage() {
    cat <<'EOF'
Usage: ./build.sh dist [TARGET...]
       ./build.sh dist --check [TARGET...]

Makes in target/dist/, for each TARGET (default: x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
x86_64-unknown-linux-musl), a tarball, packages for Debian and for systems with RPM, a binary rock, the debug symbols, a
bill of materials (CycloneDX); once, the tarball of opm; and SHA256SUMS of all. --check tries them: packaging/check.sh.

Environment:
  RPW_DIST          in place of target/dist
  RPW_DIST_TOOLS    where compilers and tools are put (target/dist-tools)
  RPW_DIST_BUILD    where cargo builds (target/dist-build)
EOF
}

# The tree that the packages of a target are made from, as the tarball has it.
assemble() {
    local target=$1 tree=$2 symbols=$2-symbols
    mkdir -p "$tree/lib"
    without_symbols "$built/libresty_proxy_wasm.so" "$tree/libresty_proxy_wasm.so" \
        "$symbols/libresty_proxy_wasm.so.debug"
    cp -r lib/resty "$tree/lib/"
    cp -r include "$tree/include"
    install -D -m 644 -t "$tree/demo" packaging/demo/nginx.conf
    install -m 644 examples/add-header/build/release.wasm "$tree/demo/add-header.wasm"
    cp packaging/files.sh packaging/install.sh "$tree/"
    cp docs/install.md "$tree/INSTALL.md"
    documents "$target" resty-proxy-wasm "$tree"
    set_modes "$tree" "$symbols"
    chmod 755 "$tree/libresty_proxy_wasm.so" "$tree/install.sh"
}

# The same for the tool.
assemble_tool() {
    local target=$1 tree=$2 symbols=$2-symbols
    without_symbols "$built/proxy-wasm" "$tree/bin/proxy-wasm" "$symbols/proxy-wasm.debug"
    manual_pages
    cp -r "$work/man" "$tree/man"
    documents "$target" "$tool" "$tree"
    set_modes "$tree" "$symbols"
    chmod 755 "$tree/bin/proxy-wasm"
}

documents() {
    cp LICENSE CHANGELOG.md "$3/"
    python3 packaging/components.py --target "$1" --packages "$2" --compiler "$compiler" --licences \
        >"$3/THIRD-PARTY-LICENSES"
}

set_modes() {
    find "$@" -type d -exec chmod 755 {} +
    find "$@" -type f -exec chmod 644 {} +
}

# The manual pages, for all targets: the tool writes them, so one that runs here is asked.
manual_pages() {
    if [[ ! -e $work/man ]]; then
        mkdir "$work/man"
        if ! "$built/proxy-wasm" man "$work/man" 2>/dev/null; then
            cargo run --quiet --release --package "$tool" --bin proxy-wasm -- man "$work/man"
        fi
    fi
}

make() {
    local target=$1 tree=lua-resty-proxy-wasm-$version-$1 tool_tree=proxy-wasm-$version-$1 lua lib include bin man demo
    compile "$tool" "$target"
    say "packages for $target"
    assemble "$target" "$work/$target/$tree"
    make_tarballs "$work/$target" "$tree"
    if [[ -n $tool ]]; then
        assemble_tool "$target" "$work/$target/$tool_tree"
        make_tarballs "$work/$target" "$tool_tree"
    fi
    python3 packaging/components.py --target "$target" --packages resty-proxy-wasm ${tool:+"$tool"} \
        --compiler "$compiler" --sbom >"$out/$tree.cdx.json"
    tree=$work/$target/$tree tool_tree=$work/$target/$tool_tree
    # What has .deb, .rpm and rocks is linked with glibc.
    if [[ $target == *-gnu ]]; then
        layout deb "${target%%-*}-linux-gnu"
        make_deb lua-resty-proxy-wasm libnginx-mod-http-lua "$target" "$tree"
        layout rpm
        make_rpm lua-resty-proxy-wasm lua-resty-core "$target" "$tree"
        layout openresty-package
        make_deb openresty-proxy-wasm openresty "$target" "$tree"
        make_rpm openresty-proxy-wasm openresty "$target" "$tree"
        make_rock "$target" "$tree"
        if [[ -n $tool ]]; then
            layout deb "${target%%-*}-linux-gnu"
            make_deb proxy-wasm lua-resty-proxy-wasm "$target" "$tool_tree"
            make_rpm proxy-wasm lua-resty-proxy-wasm "$target" "$tool_tree"
        fi
    fi
}

targets=() check=''
for argument; do
    case $argument in
    --check) check=1 ;;
    -h | --help)
        usage
        exit
        ;;
    *-linux-*) targets+=("$argument") ;;
    *)
        usage >&2
        die "no target: $argument"
        ;;
    esac
done
if ((${#targets[@]} == 0)); then
    targets=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl)
fi

out=$(realpath -m "${RPW_DIST:-target/dist}")
if [[ -n $check ]]; then
    exec packaging/check.sh "$out" "${targets[@]}"
fi
tools=$(realpath -m "${RPW_DIST_TOOLS:-target/dist-tools}")
build=$(realpath -m "${RPW_DIST_BUILD:-target/dist-build}")
work=$build/packages
mkdir -p "$out" "$tools" "$work"
rm -rf "${work:?}"/*

python3 -c 'import ensurepip' 2>/dev/null || packages python3 python3-venv
command_from llvm-objcopy llvm
command_from xz xz-utils
command_from zip zip
command_from rpmbuild rpm
setup_zig
setup_cargo_deb

version=$(python3 packaging/components.py --version)
tool=$(python3 packaging/components.py --package-of-binary proxy-wasm)
# A release is made from a commit; a tree with changes says so.
RPW_COMMIT=$(git describe --always --abbrev=12 --exclude '*' --dirty)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export RPW_COMMIT SOURCE_DATE_EPOCH

rm -f "$out"/*
make_opm
for target in "${targets[@]}"; do
    make "$target"
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
say "$out"
ls -l "$out"
exit
