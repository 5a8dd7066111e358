#!/bin/sh
# rootfs.sh BINARY DIRECTORY: lays out the root file system of an image around one binary. The Dockerfile and
# e2e/images.sh both call it, so what users build and what the tests run hold the same files.
#
# There is no shell in it and nothing else to run: the binary, glibc (both binaries are linked dynamically: the worker
# loads the driver's libcuda when it finds one, and glibc resolves names properly only so), and the CA bundle.
set -eu
binary=$1
root=$2
rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
install -m 755 "$binary" "$root/usr/bin/"
# Release builds are stripped already; a debug build is a third as large without its line tables.
strip "$root/usr/bin/$(basename "$binary")"

# What the binary is linked to, and what libcuda needs when the worker loads it.
architecture=$(uname -m)
{
    ldd "$binary" | grep -o '/[^ ]*'
    for name in libc.so.6 libm.so.6 libgcc_s.so.1 libdl.so.2 libpthread.so.0 librt.so.1; do
        echo "/lib/$architecture-linux-gnu/$name"
    done
} | sort -u | while read -r library; do
    install -D -m 755 "$library" "$root$library"
done

install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# Names for the user that the image runs as, and the order in which glibc asks: pods get their own /etc/hosts.
echo 'kimi:x:65532:65532::/:/' >"$root/etc/passwd"
echo 'kimi:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
