#!/bin/bash
# device.sh SOURCE BUILD: the preset device, installed and started in an empty root that holds libc alone (and what the kernel
# gives: /proc, which the loader needs to find what lies beside a program, and /dev); under 40 MB. Exit 77 (skipped) where nobody lets us change the root.
set -u
PATH=$PATH:/usr/sbin:/sbin
source=$1 build=$2 into=$2/installed
fail() { echo "not ok: $*" >&2; exit 1; }

user=
[ "$(id -u)" -eq 0 ] || user=--map-root-user
unshare $user --mount true 2>/dev/null || { echo "skipped: no way to change the root here"; exit 77; }
cmake -G Ninja -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DHM_DEVICE=ON -DHM_TESTS=OFF \
    -DCMAKE_INSTALL_PREFIX="$into" >"$build.log" 2>&1 &&
    ninja -C "$build" install/strip >>"$build.log" 2>&1 || { tail -n 20 "$build.log" >&2; fail "the build"; }
size=$(du -sk --apparent-size "$into" | cut -f 1)
[ "$size" -lt 40960 ] || fail "$size KiB are more than 40 MiB"

root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
cp -a "$into" "$root/hallmark" && mkdir "$root/tmp" "$root/proc" "$root/dev" || fail "the root"
# libc's own files, where the tool looks for them
ldd "$into/hallmark" | awk '/ld-linux/ { print $1 } /lib(c|m|dl|pthread|rt)\.so/ { print $3 }' | while read -r file; do
    mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"
done
run() {
    unshare $user --mount sh -c 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" /hallmark/hallmark "$@"' "$root" "$@" </dev/null
}
run --version || fail "it does not start"
run certify --suite smoke --op rms_norm --out /tmp/out >"$root/log" 2>&1 || { tail -n 5 "$root/log" >&2; fail "certify"; }
tail -n 1 "$root/log"
grep -q ' 0 failed, 0 out of class, 0 vacuous, 0 skipped' "$root/log" || fail "the suite is not clean"
[ "$(ls "$root/tmp/out" | tr '\n' ' ')" = "certificate.json summary.md " ] || fail "the certificate: $(ls "$root/tmp/out")"
# The library for the driver is not in this root: every case that needs it is skipped; 3: a build without CUDA ran nothing.
run certify --impl cuda --suite smoke --op rms_norm >"$root/log" 2>&1
status=$?
tail -n 1 "$root/log"
[ $status -eq 3 ] || { [ $status -eq 0 ] && grep -q ' 0 failed, .*[1-9][0-9]* skipped' "$root/log"; } || fail "cuda without a driver"
echo "ok: $size KiB"
