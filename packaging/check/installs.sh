# shellcheck shell=bash
# Installs packages into roots of their own, starts nginx there and asks it. Sourced by check.sh.

# The processes that stop_all ends: nginx in roots, a server of rocks.
started=()

stop_all() {
    local process
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null || true
    done
    started=()
}

# A folder $1 with a new root of a Debian release $2 with the packages $3. Each kind is downloaded once.
new_root() {
    local file=$tools/roots/$2-$(cksum <<<"$3" | cut -d ' ' -f 1).tar
    if [[ ! -e $file ]]; then
        mkdir -p "${file%/*}"
        mmdebstrap --quiet --variant=minbase --include="$3" "$2" "$file.new.tar" http://deb.debian.org/debian
        mv "$file.new.tar" "$file"
    fi
    mkdir -p "$1"
    tar -xf "$file" -C "$1"
}

# Runs a command in a root, which has /proc as long as the command and its children run.
inside() {
    # shellcheck disable=SC2016
    unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' sh "$@"
}

# The commands of a way to install, as docs/install.md has them.
documented() {
    local commands
    commands=$(awk -v mark="<!-- tested: $1 -->" '
        $0 == mark { wanted = 1; next }
        wanted && /^```/ { if (open) exit; open = 1; next }
        wanted && open { print }' docs/install.md)
    [[ -n $commands ]] || die "docs/install.md has no way $1"
    printf 'set -eu\nsudo() { "$@"; }\ncd /download\n%s\n' "$commands"
}

# Runs them in a root that has the packages in /download.
run_documented() {
    local begin=$EPOCHREALTIME
    mkdir -p "$1/download"
    cp "$out"/* "$1/download/"
    documented "$2" | inside "$1" sh -x >"$work/log" 2>&1 </dev/stdin || {
        cat "$work/log"
        die "the commands for $2 failed"
    }
    awk -v a="$begin" -v b="$EPOCHREALTIME" -v way="$2" 'BEGIN { printf "%s: %.1f s\n", way, b - a }'
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Starts the demo of the folder $2 in a root, with the lines $3 in http {}. Sets the variables port and nginx.
start_demo() {
    port=$(free_port)
    sed -e "s/127.0.0.1:8080/127.0.0.1:$port/" -e "s|^http {|http {\n${3:-}|" "$1$2/nginx.conf" >"$1/tmp/nginx.conf"
    inside "$1" nginx -e stderr -c /tmp/nginx.conf >>"$1/tmp/log" 2>&1 || {
        cat "$1/tmp/log"
        die "nginx did not start"
    }
    until nginx=$(cat "$1/tmp/proxy-wasm-demo.pid" 2>/dev/null) && [[ -n $nginx ]]; do sleep 0.05; done
    started+=("$nginx")
}

ask_demo() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /t HTTP/1.0\r\n\r\n' >&3
    answer=$(tr -d '\r' <&3)
    exec 3>&-
    grep -x 'hello: add_header' <<<"$answer" || die "the demo answers: $answer"
}

stop_demo() {
    kill -QUIT "$nginx"
    while kill -0 "$nginx" 2>/dev/null; do sleep 0.05; done
    if grep -E '\[(error|crit|alert|emerg)\]' "$1/tmp/log"; then
        die "nginx logged errors"
    fi
}

serve_demo() {
    start_demo "$@"
    ask_demo
    stop_demo "$1"
}

# All files of a root but those that package managers keep for themselves.
files_of() {
    find "$1" -path "$1/var" -prune -o -path "$1/root/.rpmdb" -prune -o -path "$1/download" -prune -o -path "$1/tmp" -prune -o -path "$1/proc" -prune -o -print |
        sort
}

# Where OpenResty looks by default. There is no OpenResty among Debian's packages.
openresty_paths='lua_package_path "/usr/local/openresty/site/lualib/?.lua;/usr/local/openresty/lualib/?.lua;;";'
openresty_paths+=' lua_package_cpath "/usr/local/openresty/site/lualib/?.so;/usr/local/openresty/lualib/?.so;;";'

with_nginx=ca-certificates,curl,nginx,libnginx-mod-http-lua,luarocks,unzip

check_installs() {
    local target=$1
    check_oldest "$target"
    check_deb
    check_tool
    check_openresty
    check_rpm
    check_rock
    check_tarballs
    check_busybox "$target"
    check_bookworm_image
    check_upgrade
}

# Library and tool alone, on the oldest Debian that there is.
check_oldest() {
    local root=$work/bullseye
    say "Debian 11"
    new_root "$root" bullseye libc-bin
    inside "$root" ldd --version | sed -n 1p
    cp "$(probe_for x86_64-linux-gnu.2.17)" "$root/probe"
    cp "$(unpacked lua-resty-proxy-wasm "$1")/libresty_proxy_wasm.so" "$(unpacked proxy-wasm "$1")/bin/proxy-wasm" "$root/"
    inside "$root" /probe /libresty_proxy_wasm.so
    inside "$root" /proxy-wasm --version
}

check_deb() {
    local root=$work/deb
    say ".deb, on a Debian without nginx"
    new_root "$root" bookworm ca-certificates
    echo 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/99yes"
    inside "$root" apt-get update -q >/dev/null
    run_documented "$root" deb
    serve_demo "$root" /usr/share/lua-resty-proxy-wasm/demo
    run_documented "$root" deb-remove
    if find "$root/usr" "$root/etc" | grep -E 'proxy-wasm|proxy_wasm'; then
        die "the package left files behind"
    fi
}

check_tool() {
    local root=$work/tool way
    say "tool"
    new_root "$root" bookworm "$with_nginx,xz-utils"
    for way in deb tarball; do
        run_documented "$root" "tool-$way"
        inside "$root" proxy-wasm --version
        tar -xJf "$out"/lua-resty-proxy-wasm-[0-9]*-x86_64-unknown-linux-gnu.tar.xz -C "$root/tmp" --wildcards '*/demo/*'
        inside "$root" sh -c 'proxy-wasm inspect /tmp/*/demo/add-header.wasm' | grep -x 'verdict *loads and starts'
        if [[ $way == deb ]]; then
            dpkg --root="$root" --remove proxy-wasm >/dev/null
        fi
    done
    rpm -qp --list "$out"/proxy-wasm-[0-9]*."$(uname -m)".rpm | grep -x /usr/bin/proxy-wasm
    rm -rf "$root"
}

check_openresty() {
    local root=$work/openresty before
    say "OpenResty's layout"
    new_root "$root" bookworm "$with_nginx"
    before=$(files_of "$root")
    run_documented "$root" openresty-deb
    serve_demo "$root" /usr/local/openresty/share/lua-resty-proxy-wasm/demo "$openresty_paths"
    dpkg --root="$root" --remove openresty-proxy-wasm >/dev/null
    diff <(echo "$before") <(files_of "$root") || die "the package left files behind"
    rm -rf "$root"
}

# rpm works on a root from outside: Debian has none that needs it.
check_rpm() {
    local root=$work/rpm before way package
    say ".rpm"
    new_root "$root" bookworm "$with_nginx"
    before=$(files_of "$root")
    for way in lua-resty-proxy-wasm openresty-proxy-wasm; do
        package=$(echo "$out/$way"-[0-9]*."$(uname -m)".rpm)
        rpm --root "$root" --install --nodeps --noplugins "$package"
        if [[ $way == openresty-* ]]; then
            serve_demo "$root" /usr/local/openresty/share/lua-resty-proxy-wasm/demo "$openresty_paths"
        else
            serve_demo "$root" /usr/share/lua-resty-proxy-wasm/demo
        fi
        # Over itself, as an upgrade is.
        rpm --root "$root" --upgrade --replacepkgs --nodeps "$package"
        rpm --root "$root" --verify --nodeps "$way"
        rpm --root "$root" --erase --nodeps "$way"
        diff <(echo "$before") <(files_of "$root") || die "the package left files behind"
    done
    rm -rf "$root"
}

check_rock() {
    local root=$work/rock server rocks=$work/rocks demo
    say "rock"
    new_root "$root" bookworm "$with_nginx"
    run_documented "$root" rock
    demo=$(inside "$root" luarocks show --rock-dir lua-resty-proxy-wasm)/demo
    serve_demo "$root" "$demo"
    inside "$root" luarocks remove lua-resty-proxy-wasm >/dev/null

    say "rock, from a server"
    mkdir "$rocks"
    cp "$out"/*.rock "$rocks/"
    luarocks-admin make-manifest "$rocks" >/dev/null
    port=$(free_port)
    python3 -m http.server --bind 127.0.0.1 --directory "$rocks" "$port" >/dev/null 2>&1 &
    server=$!
    started+=("$server")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.05; done
    inside "$root" luarocks install --tree /srv/tree --only-server "http://127.0.0.1:$port" lua-resty-proxy-wasm
    demo=$(inside "$root" luarocks show --tree /srv/tree --rock-dir lua-resty-proxy-wasm)/demo
    serve_demo "$root" "$demo" 'lua_package_path "/srv/tree/share/lua/5.1/?.lua;;";'
    kill "$server"
    rm -rf "$root"
}

check_tarballs() {
    local root=$work/tarball before
    say "tarball"
    new_root "$root" bookworm "$with_nginx,xz-utils"
    before=$(files_of "$root")
    run_documented "$root" tarball
    serve_demo "$root" /usr/local/share/lua-resty-proxy-wasm/demo
    inside "$root" sh -c '/download/lua-resty-proxy-wasm-*-linux-gnu/install.sh --remove'
    diff <(echo "$before" | grep -v '/usr/local/') <(files_of "$root" | grep -v '/usr/local/')
    if find "$root/usr/local" -type f -o -name '*proxy*' | grep .; then
        die "install.sh --remove left files behind"
    fi

    say "opm"
    # This way has no demo of its own.
    local demo=/usr/local/openresty/share/lua-resty-proxy-wasm/demo
    mkdir -p "$root${demo%/*}"
    cp -r "$root/download"/lua-resty-proxy-wasm-*-linux-gnu/demo "$root$demo"
    run_documented "$root" opm
    serve_demo "$root" "$demo" "$openresty_paths"
    rm "$root/usr/local/openresty/site/lualib/libresty_proxy_wasm.so"
    sed -i "s|^http {|http {\n$openresty_paths|" "$root$demo/nginx.conf"
    local said
    said=$(inside "$root" nginx -e stderr -c "$demo/nginx.conf" 2>&1 || true)
    grep -A 1 'libresty_proxy_wasm.so was not found' <<<"$said" || die "without the library: $said"
    rm -rf "$root"
}

# A package of another version, made from $1 into $2: other bytes in the library, too.
repacked() {
    local folder=$work/repacked
    rm -rf "$folder"
    dpkg-deb --raw-extract "$1" "$folder"
    sed -i "s/^Version: .*/Version: $3/" "$folder/DEBIAN/control"
    find "$folder" -name 'libresty_proxy_wasm.so' -exec sh -c 'printf x >>"$1"' sh {} \;
    dpkg-deb --build -z1 --root-owner-group "$folder" "$2" >/dev/null
}

# Another version, the first again, and none, while nginx serves.
check_upgrade() {
    local root=$work/upgrade package load old
    say "upgrade, downgrade and removal under load"
    new_root "$root" bookworm "$with_nginx"
    package=$(echo "$out"/lua-resty-proxy-wasm_*_amd64.deb)
    repacked "$package" "$work/newer.deb" 99.0.0-1
    dpkg --root="$root" --install "$package" >/dev/null
    start_demo "$root" /usr/share/lua-resty-proxy-wasm/demo
    coproc LOAD { python3 packaging/check/load.py "$port"; }
    load=$LOAD_PID
    local from=${LOAD[0]} to=${LOAD[1]}
    for package in "$work/newer.deb" "$package"; do
        dpkg --root="$root" --install "$package" 2>&1 | grep -E '^(Unpacking|Setting up|dpkg: warning: downgrading)'
        sleep 1
        old=$(pgrep --parent "$nginx")
        kill -HUP "$nginx"
        while pgrep --parent "$nginx" | grep -qxF "$old"; do sleep 0.1; done
        ask_demo
    done
    dpkg --root="$root" --remove lua-resty-proxy-wasm >/dev/null
    sleep 1
    ask_demo
    exec {to}>&-
    cat <&"$from"
    wait "$load" || die "a request failed"
    stop_demo "$root"
    rm -rf "$root"
}
