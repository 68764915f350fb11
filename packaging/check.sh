#!/usr/bin/env bash
# Tries the packages of a folder as their users will: ./build.sh dist --check. It needs root, and Debian for the roots.
#
#   packaging/check.sh FOLDER TARGET...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

source tools/common.sh
source packaging/toolchain.sh
for part in packaging/check/*.sh; do
    # shellcheck source=/dev/null
    source "$part"
done

out=$1
shift
tools=$(realpath -m "${RPW_DIST_TOOLS:-target/dist-tools}")
work=$(mktemp -d)
trap 'stop_all; rm -rf "$work"' EXIT

((EUID == 0)) || die "roots need root"
command_from mmdebstrap mmdebstrap
command_from rpm rpm
command_from luarocks-admin luarocks
command_from llvm-readelf llvm
command_from wrk wrk
command_from xz xz-utils

setup_zig
check_sums
check_sbom
for target; do
    check_binary "$target"
    case $target in
    x86_64-unknown-linux-gnu) check_installs "$target" ;;
    aarch64-unknown-linux-gnu) check_arm64 ;;
    x86_64-unknown-linux-musl) check_musl "$target" ;;
    esac
done
say "all of it works"
