# shellcheck shell=bash
# The packages for arm64, with Debian's nginx for arm64 under qemu's emulation of a process. Sourced by check.sh.

# Makes the root $1, with the .deb installed, and a command $1/nginx that runs its nginx here.
#
# Nothing of the root is run while it is made, so the kernel needs not to know of qemu. qemu looks for each file that the
# program opens in the root first.
new_arm64_root() {
    local file=$tools/roots/arm64.tar
    if [[ ! -e $file ]]; then
        mkdir -p "${file%/*}"
        mmdebstrap --quiet --variant=extract --architectures=arm64 \
            --include=nginx,libnginx-mod-http-lua,lua-resty-core bookworm "$file.new.tar" http://deb.debian.org/debian
        mv "$file.new.tar" "$file"
    fi
    mkdir -p "$1/root"
    tar -xf "$file" -C "$1/root"
    dpkg-deb --extract "$out"/lua-resty-proxy-wasm_*_arm64.deb "$1/root"
    printf '#!/bin/sh\nexec qemu-aarch64-static -L %s %s "$@"\n' "$1/root" "$1/root/usr/sbin/nginx" >"$1/nginx"
    chmod 755 "$1/nginx"
}

check_arm64() {
    local root=$work/arm64 demo
    say "arm64, emulated"
    command_from qemu-aarch64-static qemu-user-static
    new_arm64_root "$root"
    qemu-aarch64-static -L "$root/root" "$(probe_for aarch64-linux-gnu.2.17)" \
        "$(unpacked lua-resty-proxy-wasm aarch64-unknown-linux-gnu)/libresty_proxy_wasm.so"
    qemu-aarch64-static -L "$root/root" "$(unpacked proxy-wasm aarch64-unknown-linux-gnu)/bin/proxy-wasm" --version
    demo=$root/root/usr/share/lua-resty-proxy-wasm/demo
    port=$(free_port)
    {
        tools/nginx-preamble "$root/nginx"
        sed -e '/modules-enabled/d' -e "s/127.0.0.1:8080/127.0.0.1:$port/" -e "s|/tmp/|$root/|" "$demo/nginx.conf"
    } >"$root/nginx.conf"
    "$root/nginx" -e stderr -c "$root/nginx.conf" 2>"$root/log" || {
        cat "$root/log"
        die "nginx did not start"
    }
    until nginx=$(cat "$root/proxy-wasm-demo.pid" 2>/dev/null) && [[ -n $nginx ]]; do sleep 0.05; done
    started+=("$nginx")
    ask_demo
    kill -QUIT "$nginx"
    while kill -0 "$nginx" 2>/dev/null; do sleep 0.05; done
    if [[ -z ${RPW_DIST_TESTS:-} ]]; then
        return
    fi
    say "tests against nginx, emulated: $RPW_DIST_TESTS"
    # shellcheck disable=SC2086
    RPW_NGINX=$root/nginx RPW_LIBRARY_DIR=$(unpacked lua-resty-proxy-wasm aarch64-unknown-linux-gnu) RPW_PATIENCE=300 \
        "$(nginx_tests)" $RPW_DIST_TESTS
}
