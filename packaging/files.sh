# shellcheck shell=sh
# What an installation has, and where. install.sh and the scripts that make packages read it. It is for any POSIX shell,
# since small systems have no other.

# Prints each file that is installed: its kind, its mode, its path below the folder $1 (a checkout, or what a tarball
# holds), and its name below the folder of its kind. A checkout has the library and the tool elsewhere.
distributed_files() {
    if [ -d "$1/lib" ]; then
        echo "lib 755 libresty_proxy_wasm.so libresty_proxy_wasm.so"
        (cd "$1/lib" && find resty -name '*.lua' | LC_ALL=C sort | sed 's|.*|lua 644 lib/& &|')
        echo "include 644 include/resty_proxy_wasm.h resty_proxy_wasm.h"
    fi
    if [ -d "$1/demo" ]; then
        echo "demo 644 demo/nginx.conf nginx.conf"
        echo "demo 644 demo/add-header.wasm add-header.wasm"
    fi
    # The command-line tool, which is packed apart: it is as large as the library.
    if [ -e "$1/bin/proxy-wasm" ]; then
        echo "bin 755 bin/proxy-wasm proxy-wasm"
        (cd "$1/man" && find . -name '*.1' | LC_ALL=C sort | sed 's|^\./\(.*\)|man 644 man/\1 \1|')
    fi
}

# Sets the folder of each kind, lua, lib, include, bin, man and demo, for a way of installing. $2 is the prefix of the first two,
# and the name that Debian has for the processor of the third.
# shellcheck disable=SC2034
layout() {
    case $1 in
    openresty)
        layout prefix "$2"
        lua=$2/lualib lib=$2/lualib
        ;;
    prefix)
        lua=$2/share/lua/5.1 lib=$2/lib/lua/5.1 include=$2/include bin=$2/bin man=$2/share/man/man1
        demo=$2/share/lua-resty-proxy-wasm/demo
        ;;
    deb)
        layout prefix /usr
        lib=/usr/lib/$2/lua/5.1
        ;;
    rpm)
        layout prefix /usr
        lib=/usr/lib64/lua/5.1
        ;;
    # OpenResty looks in site/lualib before lualib, and its own packages put nothing there.
    openresty-package)
        layout openresty /usr/local/openresty
        lua=/usr/local/openresty/site/lualib lib=$lua
        ;;
    rock)
        lua=lua lib=lib include=include bin=bin man=doc demo=demo
        ;;
    esac
}
