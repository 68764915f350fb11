#!/bin/sh
# Rebuilds build/release.wasm with the pinned compiler and SDK.
set -eu
cd "$(dirname "$0")"
npm ci --no-audit --no-fund
npm run build
