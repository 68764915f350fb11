#!/bin/sh
# Installs what a tarball holds, or a checkout that was built. See usage below, and docs/install.md.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=packaging/files.sh
. "$here/files.sh"
# A tarball has this script beside the files, a checkout in a folder.
root=$here
[ -d "$root/lib" ] || root=${here%/*}

usage() {
    cat <<'EOF'
Usage: install.sh [--force] [--remove] [PREFIX]

Installs library, Lua files and header, and of a tarball the demo. PREFIX is OpenResty's
(/usr/local/openresty) when there is one, else /usr/local. Below a PREFIX with a lualib directory:
lualib/libresty_proxy_wasm.so, lualib/resty/; below others: lib/lua/5.1/, share/lua/5.1/resty/. The header goes to
include/, the demo to share/lua-resty-proxy-wasm/. Files are replaced by renaming.

  --force   replaces files of another module, too; without it nothing is installed where there are any
  --remove  removes what this script installs, and the folders that it leaves empty

Environment: DESTDIR (installs below it), LUADIR, LIBDIR, INCLUDEDIR, DEMODIR (into exactly these directories).
EOF
}

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# Copies a file of this mode to a path, as a whole: an nginx that runs the old library keeps it until it is reloaded,
# and one that loads it meanwhile finds the old one or the new one.
place() {
    mkdir -p "${3%/*}"
    cp "$2" "$3.new.$$"
    chmod "$1" "$3.new.$$"
    mv -f "$3.new.$$" "$3"
}

# Whether a file is one that some release of this module installed. Another module has a resty/proxy-wasm.lua, too.
is_ours() {
    case $1 in
    */proxy-wasm.lua) grep -qsF 'resty.proxy-wasm.' "$1" ;;
    *.lua) grep -qsF 'rpw_abi' "${1%/resty/proxy-wasm/*}/resty/proxy-wasm/clib.lua" ;;
    */demo/*) true ;;
    # busybox's grep looks at no line behind a zero byte.
    *.so) tr '\0' '\n' <"$1" | grep -qF 'rpw_abi' ;;
    *.h) grep -qsF 'rpw_abi' "$1" ;;
    *) grep -qsi 'proxy-wasm' "$1" ;;
    esac
}

# Removes a file, and the folders above it that are then empty, up to a folder that stays.
remove() {
    rm -f "$1"
    folder=${1%/*}
    while [ "$folder" != "$2" ] && rmdir "$folder" 2>/dev/null; do
        folder=${folder%/*}
    done
}

# Calls a function for each file: mode, source, destination, and the folder that is not this module's.
each_file() {
    while read -r kind mode from name; do
        from=$root/$from stays=''
        case $kind in
        lua) folder=${LUADIR:-$lua} ;;
        lib) folder=${LIBDIR:-$lib} from=${RPW_LIBRARY:-$from} ;;
        include) folder=${INCLUDEDIR:-$include} ;;
        demo) folder=${DEMODIR:-$demo} stays=${DEMODIR:-${demo%/*/*}} ;;
        esac
        "$1" "$mode" "$from" "${DESTDIR:-}$folder/$name" "${DESTDIR:-}${stays:-$folder}"
    done <<EOF
$(distributed_files "$root")
EOF
}

name_foreign() {
    if [ -e "$3" ] && ! is_ours "$3"; then
        echo "another module has installed $3"
    fi
}

need() {
    [ -e "$2" ] || die "no $2: run ./build.sh build first"
}

remove_one() {
    # The file that tells ours from another module's is removed with the others.
    case $foreign in
    *" $3"*) ;;
    *) remove "$3" "$4" ;;
    esac
}

prefix='' force='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
    --force) force=1 ;;
    --remove) remove=1 ;;
    -h | --help)
        usage
        exit
        ;;
    -*) die "install takes --force, --remove and a PREFIX, not $1" ;;
    *)
        [ -z "$prefix" ] || die "install takes one PREFIX, not $prefix and $1"
        prefix=$1
        ;;
    esac
    shift
done
if [ -z "$prefix" ]; then
    prefix=/usr/local
    [ ! -d /usr/local/openresty/lualib ] || prefix=/usr/local/openresty
fi
if [ -d "$prefix/lualib" ]; then
    layout openresty "$prefix"
else
    layout prefix "$prefix"
fi

foreign=$(each_file name_foreign)
if [ -n "$foreign" ]; then
    printf '%s\n' "$foreign" >&2
    if [ -z "$force" ] && [ -z "$remove" ]; then
        die "nothing was installed. Install into a folder of its own (LUADIR=, LIBDIR=), which comes first in
lua_package_path; or say --force to replace the files. A package that owns them brings them back when it is upgraded."
    fi
fi

where="${DESTDIR:-}${LIBDIR:-$lib}, resty/proxy-wasm.lua"
if [ -n "$remove" ]; then
    each_file remove_one
    echo "removed libresty_proxy_wasm.so from $where from ${DESTDIR:-}${LUADIR:-$lua}"
else
    each_file need
    each_file place
    echo "installed libresty_proxy_wasm.so in $where in ${DESTDIR:-}${LUADIR:-$lua}"
fi
