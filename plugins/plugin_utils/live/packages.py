# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages of the live system."""

FREE, NONFREE = "free", "nonfree"
FIRMWARE = (FREE, NONFREE)

SYSTEM = (
    "busybox",
    "ca-certificates",
    "dbus",
    "ethtool",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kbd",
    "less",
    "linux-image-amd64",
    "openssh-server",
    "openssl",
    "pciutils",
    "procps",
    "python3",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    "usbutils",
)

DISK_TOOLS = (
    "btrfs-progs",
    "cryptsetup-bin",
    "dosfstools",
    "e2fsprogs",
    "efibootmgr",
    "exfatprogs",
    "fdisk",
    "gdisk",
    "libhivex-bin",
    "lvm2",
    "mdadm",
    "mtools",
    "ntfs-3g",
    "nvme-cli",
    "parted",
    "partclone",
    "python3-zstandard",
    "smartmontools",
    "xfsprogs",
    "zstd",
)

BOOT_LOADERS = ("grub-common", "grub-efi-amd64-signed", "grub-pc-bin", "shim-signed")
"""They are copied onto the medium and are not in the live system itself."""

COMPONENTS = {FREE: "main", NONFREE: "main non-free-firmware"}
"""Of the archive, by the kind of firmware."""

FIRMWARE_PACKAGES = {
    FREE: (),
    NONFREE: ("amd64-microcode", "firmware-bnx2", "firmware-bnx2x", "firmware-realtek", "intel-microcode"),
}
"""What network cards and processors of laptops need. The screen needs none: it stays in the mode that the machine's firmware has set."""


def package_list(firmware: str, more: list[str]) -> list[str]:
    """Return all packages that are asked for, sorted."""
    return sorted({*SYSTEM, *DISK_TOOLS, *BOOT_LOADERS, *FIRMWARE_PACKAGES[firmware], *more})
