# shellcheck shell=bash
# Makes the packages of one tree. Sourced by dist.sh. All dates are that of the commit, all owners root, all lists sorted.

archive() {
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
        --directory "$1" "${@:2}"
}

# The names that others have for the processor of a target.
debian_processor() {
    case $1 in
    x86_64-*) echo amd64 ;;
    aarch64-*) echo arm64 ;;
    esac
}

# A tarball of the folder $2 in $1, and one of the symbols beside it.
make_tarballs() {
    archive "$1" "$2" | xz -9 --threads=1 >"$out/$2.tar.xz"
    archive "$1" "$2-symbols" | xz -6 --threads=1 >"$out/$2-symbols.tar.xz"
}

# Lays the tree $1 out below $2, as the layout says that is set.
lay_out() {
    local kind mode from file
    while read -r kind mode from file; do
        install -D -m "$mode" "$1/$from" "$2${!kind}/$file"
    done < <(distributed_files "$1")
}

# The description of a package in a line (1) or in a sentence (2).
described() {
    case $1:$2 in
    proxy-wasm:1) echo "Looks at Proxy-Wasm filters, runs and tests them, without a server" ;;
    proxy-wasm:2) echo "The command proxy-wasm, by the core that lua-resty-proxy-wasm has, too." ;;
    *:1) echo "Proxy-Wasm filters on OpenResty and nginx with Lua" ;;
    *:2) echo "Runs Proxy-Wasm filters on nginx as it is: a shared library, and a Lua module that calls it." ;;
    esac
}

# Sets the variable folder to a new folder with the tree $1 laid out below root, and the documents of a package $2.
lay_out_package() {
    local file
    rm -rf "$folder"
    lay_out "$1" "$folder/root"
    for file in LICENSE THIRD-PARTY-LICENSES CHANGELOG.md; do
        install -D -m 644 "$1/$file" "$folder/root/usr/share/doc/$2/$file"
    done
    find "$folder/root" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    # cargo-deb reads a manifest of cargo's. This one has no program: all files are there.
    mkdir "$folder/src"
    : >"$folder/src/lib.rs"
    cat >"$folder/Cargo.toml" <<EOF
[package]
name = "$2"
version = "$version"
edition = "2024"
license = "Apache-2.0"
description = "$(described "$2" 1)"
authors = ["the lua-resty-proxy-wasm authors"]

[workspace]

EOF
}

# Prints a line for each file that was laid out, by a format that gets its path and its mode.
each_laid_out() {
    (cd "$folder/root" && find . -type f -printf "$1\n" | LC_ALL=C sort)
}

# Prints a line for each folder that an .rpm shares with others or has for itself: rpm removes no folder that no package
# has. Those of the system stay out.
each_folder() {
    (cd "$folder/root" &&
        find . -type d \( -path './usr/*/lua*' -o -path './usr/local/openresty*' -o -path '*proxy-wasm*' \) -printf "$1\n" |
        LC_ALL=C sort)
}

# The .deb of the package $1, which recommends $2, for the target $3 from the tree $4, in the layout that is set.
make_deb() {
    local folder=$work/$3/deb-$1
    lay_out_package "$4" "$1"
    cat >>"$folder/Cargo.toml" <<EOF
[package.metadata.deb]
maintainer = "the lua-resty-proxy-wasm authors <lua-resty-proxy-wasm@localhost>"
section = "httpd"
depends = "libc6 (>= $glibc)"
recommends = "$2"
license-file = ["root/usr/share/doc/$1/LICENSE", "0"]
extended-description = "$(described "$1" 2)"
assets = [
$(each_laid_out '    ["root/%P", "%P", "%m"],')
]
EOF
    (cd "$folder" && cargo deb --quiet --no-build --no-strip --no-dbgsym --target "$3" --output .)
    mv "$folder"/*.deb "$out/$1_${version}_$(debian_processor "$3").deb"
}

# The .rpm, likewise. By rpmbuild: what makes packages of cargo's manifests puts no folders in.
make_rpm() {
    local folder=$work/$3/rpm-$1
    lay_out_package "$4" "$1"
    cat >"$folder/package.spec" <<EOF
Name: $1
Version: $version
Release: 1
Summary: $(described "$1" 1)
License: Apache-2.0
AutoReqProv: no
Requires: libc.so.6(GLIBC_$glibc)(64bit)
Recommends: $2

%description
$(described "$1" 2)

%install
cp -a "$folder/root/." %{buildroot}

%files
%defattr(-, root, root)
$(each_folder '%%dir "/%P"')
$(each_laid_out '"/%P"')
EOF
    # The files as they are, and nothing of this machine. xz: RHEL 7 knows no zstd.
    rpmbuild -bb --quiet --target "${3%%-*}-linux" --define "_topdir $folder/rpmbuild" --define "_rpmdir $folder" \
        --define "_rpmfilename $1-$version-1.${3%%-*}.rpm" --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" --define "__os_install_post %{nil}" \
        --define "debug_package %{nil}" --define "_build_id_links none" --define "_binary_payload w9.xzdio" \
        "$folder/package.spec"
    mv "$folder/$1-$version-1.${3%%-*}.rpm" "$out/"
}

# A binary rock: what luarocks itself would pack, for any processor.
make_rock() {
    local target=$1 tree=$2 folder=$work/$1/rock name=lua-resty-proxy-wasm lua lib include bin man demo
    rm -rf "$folder"
    mkdir -p "$folder"
    layout rock
    lay_out "$tree" "$folder/"
    install -D -m 644 -t "$folder/doc" "$tree/LICENSE" "$tree/THIRD-PARTY-LICENSES"
    sed -e "s/^version = .*/version = \"$version-1\"/" \
        lua-resty-proxy-wasm-dev-1.rockspec >"$folder/$name-$version-1.rockspec"
    (cd "$folder" && find . -type f -printf '%P\n' | LC_ALL=C sort | python3 "$root/packaging/rock_manifest.py") \
        >"$work/rock_manifest"
    mv "$work/rock_manifest" "$folder/rock_manifest"
    find "$folder" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    rm -f "$out/$name-$version-1.linux-${target%%-*}.rock"
    (cd "$folder" && find . -type f -printf '%P\n' | LC_ALL=C sort |
        TZ=UTC zip --quiet -X -9 --names-stdin "$out/$name-$version-1.linux-${target%%-*}.rock")
}

# What `opm build` makes: the Lua files and dist.ini, with the version.
make_opm() {
    local folder=$work/opm name=lua-resty-proxy-wasm-$version file
    rm -rf "$folder"
    while IFS= read -r file; do
        install -D -m 644 "lib/$file" "$folder/$name/lib/$file"
    done < <(cd lib && find resty -name '*.lua')
    install -m 644 README.md "$folder/$name/README.md"
    install -m 644 LICENSE "$folder/$name/COPYING"
    { cat dist.ini && echo "version = $version"; } >"$folder/$name/dist.ini"
    chmod 644 "$folder/$name/dist.ini"
    archive "$folder" "$name" | gzip -9 --no-name >"$out/$name.opm.tar.gz"
}
