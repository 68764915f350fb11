# shellcheck shell=bash
# What build.sh and the scripts that it calls have in common: sourced by them.

say() { printf '\n==> %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Installs the Debian packages among these that are missing, or says which.
packages() {
    local package missing=()
    for package; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            missing+=("$package")
        fi
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        die "missing, by the names that Debian has for them: ${missing[*]}"
    fi
    if ((EUID != 0)); then
        die "please install what is missing: sudo apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
}

# Makes a command available, from the package of the second argument.
command_from() {
    command -v "$1" >/dev/null || packages "$2"
}

# Builds the tests against nginx and prints their program. As `./build.sh test` builds it: with `--test nginx` cargo would
# choose other features, and build half of it again.
nginx_tests() {
    cargo test --release --workspace --no-run --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\/nginx-[^"]*\)".*/\1/p'
}
