#!/usr/bin/env bash
set -euo pipefail
# Writes the page's libraries, as vendor.lock names them, into the gateway. Run: make vendor
# For another version, write it into the lock with the hash that this script then prints, and the new folder into page/index.html.
cd "$(dirname "${BASH_SOURCE[0]}")"
target=src/rfuav_gateway/page/vendor
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
rm -rf "$target"
grep -v '^#' vendor.lock | while read -r name version hash files; do
  archive=$packed/$(cd "$packed" && npm pack --silent "$name@$version")
  found=sha512-$(openssl dgst -sha512 -binary "$archive" | base64 --wrap 0)
  [ "$found" = "$hash" ] || { echo "vendor: $name $version has the hash $found, vendor.lock says $hash" >&2; exit 1; }
  mkdir -p "$target/$name-$version"
  for file in $files; do
    tar --extract --to-stdout --file "$archive" "package/${file%=*}" | sed '/^\/\/# sourceMappingURL=/d' >"$target/$name-$version/${file#*=}"
  done
done
