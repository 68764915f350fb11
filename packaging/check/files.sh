# shellcheck shell=bash
# What can be told without running a package. Sourced by check.sh.

# The most that a package may have.
size_limit=$((8 * 1024 * 1024))

check_sums() {
    say "sums and sizes"
    (cd "$out" && sha256sum --check --quiet SHA256SUMS)
    local file size
    for file in "$out"/*; do
        size=$(stat --format %s "$file")
        printf '%9d  %s\n' "$size" "${file##*/}"
        if [[ $file != *-symbols.tar.xz ]] && ((size > size_limit)); then
            die "${file##*/} is too large"
        fi
    done
}

check_sbom() {
    say "bills of materials"
    local python=$tools/cyclonedx/bin/python
    if [[ ! -e $python ]]; then
        python3 -m venv --clear "$tools/cyclonedx"
        "$tools/cyclonedx/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]'
    fi
    "$python" - "$out"/*.cdx.json <<'EOF'
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

for path in sys.argv[1:]:
    text = open(path).read()
    wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if wrong:
        sys.exit(f"{path}: {wrong}")
    names = {component["name"] for component in json.loads(text)["components"]}
    if not {"wasmtime", "hyper", "Rust standard library"} <= names:
        sys.exit(f"{path}: components are missing")
    print(f"{path}: valid, {len(names)} components")
EOF
}

# Unpacks the tarball $1 of a target $2; prints the folder.
unpacked() {
    if [[ ! -d $work/$2/$1 ]]; then
        mkdir -p "$work/$2/$1"
        tar -xJf "$out/$1"-[0-9]*-"$2".tar.xz -C "$work/$2/$1" --strip-components=1
    fi
    echo "$work/$2/$1"
}

# Compiles the probe for a target of zig's: $1. Prints the program.
probe_for() {
    mkdir -p "$work/probe"
    "$CARGO_ZIGBUILD_ZIG_PATH" cc -target "$1" -o "$work/probe/$1" packaging/check/probe.c -ldl
    echo "$work/probe/$1"
}

# What library and tool of a target need, and how they were linked.
check_binary() {
    local target=$1 tree
    say "library and tool for $target"
    tree=$(unpacked lua-resty-proxy-wasm "$target")
    check_linked "$target" "$tree/libresty_proxy_wasm.so"
    # A reload closes nginx's Lua, and the code must stay.
    llvm-readelf --dynamic-table "$tree/libresty_proxy_wasm.so" | grep -q NODELETE || die "not linked with -z nodelete"
    check_linked "$target" "$(unpacked proxy-wasm "$target")/bin/proxy-wasm"
}

check_linked() {
    local target=$1 file=$2 name=${2##*/} versions needed highest path
    needed=$(llvm-readelf --needed-libs "$file" | sed -n 's/^ *\(lib[^ ]*\|ld-[^ ]*\)$/\1/p' | sort | xargs)
    echo "$name needs $needed"
    case $target in
    *-gnu)
        versions=$(llvm-readelf --version-info "$file" | grep -o 'GLIBC_[0-9.]*' | sort --version-sort --unique)
        highest=$(tail -n 1 <<<"$versions")
        echo "$name needs up to $highest"
        [[ $(printf '%s\nGLIBC_2.17\n' "$highest" | sort --version-sort | tail -n 1) == GLIBC_2.17 ]] ||
            die "$name needs a newer glibc than 2.17: $versions"
        [[ ! $needed =~ libgcc|libunwind|libstdc ]] || die "$name needs a library that is not everywhere: $needed"
        ;;
    *-musl)
        # The tool is linked statically, so that it runs on any Linux.
        [[ $name == proxy-wasm ]] || needed=${needed/libc.so/}
        [[ -z $needed ]] || die "$name needs more than musl: $needed"
        ;;
    esac
    if llvm-readelf --sections "$file" | grep -q '\.debug_info'; then
        die "$name holds debug symbols"
    fi
    # Where cargo and the compilers were; a path of this machine is a difference from what another one builds.
    for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}" "${RUSTUP_HOME:-$HOME/.rustup}" "$tools" \
        "$(realpath -m "${RPW_DIST_BUILD:-target/dist-build}")"; do
        if grep -aqF -e "$path/" "$file"; then
            grep -aoF -m 1 -e "$path/" "$file" | head -n 1
            die "$name holds paths of the machine that built it"
        fi
    done
}
