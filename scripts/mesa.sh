#!/usr/bin/env bash
# Runs a program of Node with a current lavapipe (Mesa's Vulkan driver on the CPU) as its only GPU: float16 and subgroups
# without a GPU. Debian's stable Mesa is too old for Dawn, so a newer one is unpacked beside the system, which stays as
# it is, together with the C library that it needs; node is started with that library's loader.
#
#   scripts/mesa.sh [node arguments]     for example: scripts/mesa.sh --test file.mjs
#   scripts/mesa.sh --fetch              only unpacks
#
# The folder (MESA_HOME, default ~/.cache/tfjs-diffusers/mesa) keeps the packages and Mesa's cache of compiled shaders.
set -euo pipefail

home=${MESA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/tfjs-diffusers/mesa}
suite=sid
# the mirror that this system takes its own packages from
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian$')}
arch=$(dpkg --print-architecture)
libraries=$home/root/usr/lib/$(uname -m)-linux-gnu

fetch() {
  local state=$home/apt
  mkdir -p "$state"/{lists/partial,cache/archives/partial,etc/preferences.d} "$home/debs"
  : >"$state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
  local apt=(apt-get -qq -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state/cache" -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::Etc::PreferencesParts=$state/etc/preferences.d" -o Debug::NoLocking=1 -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o APT::Install-Recommends=false)
  "${apt[@]}" update
  # with an empty status file the install list is the driver with everything that it depends on
  "${apt[@]}" -y --download-only install mesa-vulkan-drivers libvulkan1 libc6 libstdc++6 libgcc-s1
  rm -rf "$home/root"
  for deb in "$state"/cache/archives/*.deb; do
    dpkg-deb -x "$deb" "$home/root"
  done
  rm -rf "$state" "$home/debs"
  # the driver's manifest names the library without a folder
  printf '{"file_format_version":"1.0.1","ICD":{"library_path":"%s","api_version":"1.4.0"}}\n' \
    "$libraries/libvulkan_lvp.so" >"$home/lavapipe.json"
}

if [ ! -f "$home/lavapipe.json" ]; then
  mkdir -p "$home"
  (flock 9 && { [ -f "$home/lavapipe.json" ] || fetch; }) 9>"$home/lock"
fi
[ "${1:-}" != --fetch ] || exit 0

case $arch in
  amd64) loader=$libraries/ld-linux-x86-64.so.2 ;;
  arm64) loader=$libraries/ld-linux-aarch64.so.1 ;;
  *) echo "mesa.sh: no loader is known for $arch" >&2 && exit 1 ;;
esac
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$home}
export VK_ICD_FILENAMES=$home/lavapipe.json VK_DRIVER_FILES=$home/lavapipe.json
export MESA_SHADER_CACHE_DIR=$home/shaders
exec "$loader" --library-path "$libraries:/usr/lib/$(uname -m)-linux-gnu" "$(command -v node)" "$@"
