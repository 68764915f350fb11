# shellcheck shell=bash
# The Dockerfiles of docs/install.md, whose commands are run in roots: there is no Docker here, and no image. Sourced by
# check.sh.

# Runs the Dockerfile whose image's name ends in $2 in the root $1, with the packages of a release beside it.
run_dockerfile() {
    local root=$1 image=$2 commands word rest
    commands=$(awk -v ending="-$image" '
        /^```/ { wanted = 0 }
        $1 == "FROM" { wanted = substr($2, length($2) - length(ending) + 1) == ending; next }
        wanted' docs/install.md)
    [[ $commands == *COPY*RUN* ]] || die "docs/install.md has no Dockerfile for $image"
    while read -r word rest; do
        case $word in
        # shellcheck disable=SC2086
        COPY) (cd "$out" && cp ${rest% *} "$root${rest##* }") ;;
        RUN) inside "$root" sh -euc "$rest" >/dev/null ;;
        *) die "a Dockerfile has $word" ;;
        esac
    done <<<"$commands"
}

check_bookworm_image() {
    local root=$work/image
    say "Dockerfile for Debian"
    new_root "$root" bookworm "$with_nginx"
    mkdir -p "$root/usr/local/openresty/lualib"
    run_dockerfile "$root" bookworm
    serve_demo "$root" /usr/local/openresty/share/lua-resty-proxy-wasm/demo "$openresty_paths"
    rm -rf "$root"
}

# A root $1 with the commands of busybox and nothing else, as Alpine has them, and OpenResty's folder.
new_busybox_root() {
    command_from busybox busybox-static
    mkdir -p "$1"/{bin,proc,tmp,download,usr/local/openresty/{lualib,include,share}}
    cp "$(command -v busybox)" "$1/bin/busybox"
    mkdir "$1/dev"
    mknod -m 666 "$1/dev/null" c 1 3
    chroot "$1" /bin/busybox --install -s /bin
}

# install.sh and tar as small systems have them, with the tarball of a target.
check_busybox() {
    local root=$work/busybox before
    say "tarball, by busybox"
    new_busybox_root "$root"
    before=$(files_of "$root")
    if [[ $1 == *-musl ]]; then
        run_dockerfile "$root" alpine
    else
        cp "$out"/lua-resty-proxy-wasm-[0-9]*-"$1".tar.xz "$root/download/"
        inside "$root" sh -euc 'cd /download && tar -xJf *.tar.xz && ./*/install.sh' >/dev/null
    fi
    [[ -x $root/usr/local/openresty/lualib/libresty_proxy_wasm.so ]] || die "the library was not installed"
    tar -xJf "$out"/lua-resty-proxy-wasm-[0-9]*-"$1".tar.xz -C "$root/tmp" --strip-components=1
    # Over itself, which it must know again.
    inside "$root" sh /tmp/install.sh >/dev/null
    inside "$root" sh /tmp/install.sh --remove >/dev/null
    diff <(echo "$before") <(files_of "$root") || die "install.sh --remove left files behind"
    rm -rf "$root"
}
