#!/usr/bin/env python3
"""Tells what is linked into the library and the tool: as a bill of materials (CycloneDX 1.5) and as a file of licences.

    components.py --target TARGET --packages NAME... --compiler TEXT (--sbom | --licences)
    components.py --version                     the version of all packages, from the workspace
    components.py --package-of-binary NAME      the package of the workspace with that binary, if there is one

cargo is asked which crates are linked in. Crates that run at build time only (build scripts, macros) are left out. The same
tree gives the same bytes.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = "resty-proxy-wasm"
LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def cargo(*arguments):
    return subprocess.run(
        ["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def metadata(*arguments):
    return json.loads(cargo("metadata", "--format-version", "1", "--locked", *arguments))


def linked(target, packages):
    """The packages that are linked in, as cargo metadata describes them, in order of name and version."""
    tree = ["tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none"]
    tree += ["--no-dedupe", "--format", "{p}"]
    for package in packages:
        tree += ["--package", package]
    names = {tuple(line.split()[:2]) for line in cargo(*tree).splitlines() if line}
    found = [p for p in metadata("--filter-platform", target)["packages"] if (p["name"], "v" + p["version"]) in names]
    found.sort(key=lambda p: (p["name"], p["version"]))
    return found


def checksums():
    """The SHA-256 of each package's archive, by name and version, from the lock file."""
    sums, entry = {}, {}
    for line in (ROOT / "Cargo.lock").read_text().splitlines():
        if line == "[[package]]":
            entry = {}
        elif " = " in line:
            key, value = line.split(" = ", 1)
            entry[key] = value.strip('"')
            if key == "checksum":
                sums[entry["name"], entry["version"]] = entry[key]
    return sums


def identifier(package):
    return "pkg:cargo/{}@{}".format(package["name"], package["version"])


def component(package, sums):
    described = {
        "type": "library",
        "bom-ref": identifier(package),
        "name": package["name"],
        "version": package["version"],
        "purl": identifier(package),
    }
    if package["license"]:
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def sbom(target, packages, compiler):
    crates = linked(target, packages)
    sums = checksums()
    names = {package["id"]: identifier(package) for package in crates}
    nodes = metadata("--filter-platform", target)["resolve"]["nodes"]
    dependencies = []
    for node in sorted(nodes, key=lambda node: node["id"]):
        if node["id"] in names:
            on = {
                names[dep["pkg"]]
                for dep in node["deps"]
                if dep["pkg"] in names and any(kind["kind"] is None for kind in dep["dep_kinds"])
            }
            dependencies.append({"ref": names[node["id"]], "dependsOn": sorted(on)})
    ours = next(package for package in crates if package["name"] == OURS)
    standard = {
        "type": "library",
        "bom-ref": "rust-std",
        "name": "Rust standard library",
        "version": compiler,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }
    main = component(ours, sums)
    main["name"] = "lua-resty-proxy-wasm"
    main["description"] = ours["description"]
    for entry in dependencies:
        if entry["ref"] == main["bom-ref"]:
            entry["dependsOn"].append("rust-std")
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    commit = os.environ.get("RPW_COMMIT", "unknown")
    when = subprocess.run(
        ["date", "-u", "-d", f"@{seconds}", "+%Y-%m-%dT%H:%M:%SZ"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same for the same commit and target.
        "serialNumber": "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_URL, f"{OURS}/{commit}/{target}")),
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": main,
            "properties": [{"name": "target", "value": target}, {"name": "commit", "value": commit}],
        },
        "components": [component(package, sums) for package in crates if package is not ours] + [standard],
        "dependencies": dependencies + [{"ref": "rust-std"}],
    }


def licence_files(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    return sorted(
        file for file in folder.iterdir() if file.is_file() and file.name.upper().startswith(LICENCE_FILES)
    )


def licences(target, packages, compiler):
    """Each text once, under the names of the packages that come with it."""
    texts, lines = {}, []
    for package in linked(target, packages):
        if package["source"] is None:
            continue
        lines.append("{} {}: {}".format(package["name"], package["version"], package["license"]))
        for file in licence_files(package):
            text = "\n".join(line.rstrip() for line in file.read_text(errors="replace").strip().splitlines())
            texts.setdefault(text, []).append("{} {}".format(package["name"], package["version"]))
    lines.append(f"Rust standard library, {compiler}: MIT OR Apache-2.0")
    parts = ["lua-resty-proxy-wasm is made with the following works of others.", "\n".join(lines)]
    for text, users in texts.items():
        parts.append("=" * 78 + "\n" + ", ".join(users) + "\n\n" + text)
    return "\n\n".join(parts) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--target")
    arguments.add_argument("--packages", nargs="+", default=[OURS])
    arguments.add_argument("--compiler", default="rustc")
    for name in ("--sbom", "--licences", "--version"):
        arguments.add_argument(name, action="store_true")
    arguments.add_argument("--package-of-binary")
    given = arguments.parse_args()
    if given.sbom:
        json.dump(sbom(given.target, given.packages, given.compiler), sys.stdout, indent=1)
        print()
    elif given.licences:
        sys.stdout.write(licences(given.target, given.packages, given.compiler))
    elif given.version:
        print(next(p["version"] for p in metadata("--no-deps")["packages"] if p["name"] == OURS))
    elif given.package_of_binary:
        for package in metadata("--no-deps")["packages"]:
            if any(t["kind"] == ["bin"] and t["name"] == given.package_of_binary for t in package["targets"]):
                print(package["name"])
    else:
        arguments.error("say what to tell")


main()
