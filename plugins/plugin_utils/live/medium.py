# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ISO image, which starts by BIOS and by UEFI, from a USB stick and from a DVD. Nothing is mounted to make it."""

import os
import shutil
import time
from pathlib import Path

from .programs import Programs

PARAMETERS = (
    "boot=fleet",
    "quiet",
    "loglevel=3",
    # Only the firmware's own graphics mode: drivers without their firmware leave some screens black.
    "nomodeset",
    "consoleblank=0",
    # No swap, no resume from it, no partition that is mounted because of its type, no RAID of the kernel's own accord.
    "noresume",
    "systemd.swap=0",
    "systemd.gpt_auto=0",
    "raid=noautodetect",
    "console=ttyS0,115200",
    "console=tty0",
)
"""The kernel's parameters, for all ways to start the live system."""

ESP_KIB = 12 << 10
"""Size of the EFI system partition: shim, its key manager and GRUB are 6 MiB."""

ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
"""Types of partitions: UEFI specification 2.10, table 5.7; Microsoft's for data."""

FIND_MEDIUM = """\
search --no-floppy --set=root --label {label}
set prefix=($root)/boot/grub
configfile /boot/grub/grub.cfg
"""

MENU = """\
search --no-floppy --set=root --label {label}
set default=0
set timeout=3
if [ "$grub_platform" = pc ]; then
    set gfxpayload=1024x768x32,1024x768,800x600x32,auto,text
else
    set gfxpayload=keep
fi
menuentry "Live system for imaging" {{
    linux /live/vmlinuz {parameters} fleet.label={label}
    initrd /live/initrd
}}
menuentry "Live system for imaging, with the kernel's messages" {{
    linux /live/vmlinuz {parameters} fleet.label={label} loglevel=6 systemd.show_status=1
    initrd /live/initrd
}}
"""


def make_iso(parts: Path, iso: Path, label: str, epoch: int, programs: Programs) -> None:
    """Make the ISO image of the kernel, the initrd, the squashfs and the boot loaders in a folder; raises ImagingError.

    Its label is the only thing by which boot loaders and initrd find the medium. ``epoch`` is the time of all files in it.
    """
    tree = parts / "iso"
    for folder in ("live", "boot/grub", ".disk"):
        (tree / folder).mkdir(parents=True)
    for name in ("vmlinuz", "initrd", "filesystem.squashfs"):
        os.link(parts / name, tree / "live" / name)
    shutil.copyfile(parts / "eltorito.img", tree / "boot/grub/eltorito.img")
    menu = MENU.format(label=label, parameters=" ".join(PARAMETERS))
    (tree / "boot/grub/grub.cfg").write_text(menu)
    (tree / ".disk/info").write_text(f"fleet.imaging live system {label}\n")
    esp = parts / "esp.img"
    make_esp(parts, esp, label, epoch, programs)
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (epoch, epoch))
    programs.run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-o", str(iso), "-V", label, "-r", "-J"),
            f"--modification-date={time.strftime('%Y%m%d%H%M%S00', time.gmtime(epoch))}",
            *(
                "-b",
                "boot/grub/eltorito.img",
                "-no-emul-boot",
                "-boot-load-size",
                "4",
                "-boot-info-table",
                "--grub2-boot-info",
            ),
            *("--grub2-mbr", str(parts / "boot_hybrid.img"), "--mbr-force-bootable", "-partition_offset", "16"),
            *("-iso_mbr_part_type", BASIC_DATA, "-append_partition", "2", ESP_TYPE, str(esp), "-appended_part_as_gpt"),
            *("-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"),
            str(tree),
        ]
    )


def make_esp(parts: Path, esp: Path, label: str, epoch: int, programs: Programs) -> None:
    """Make the EFI system partition with the signed boot loaders."""
    (parts / "grub.cfg").write_text(FIND_MEDIUM.format(label=label))
    files = {
        "EFI/BOOT/BOOTX64.EFI": "bootx64.efi",
        "EFI/BOOT/grubx64.efi": "grubx64.efi",
        "EFI/BOOT/mmx64.efi": "mmx64.efi",
        "boot/grub/grub.cfg": "grub.cfg",
    }
    programs.run(["mkfs.fat", "-C", "--invariant", "-n", "FLEET_ESP", "-i", "f1ee7001", str(esp), str(ESP_KIB)])
    programs.run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT", "::/boot", "::/boot/grub"])
    for target, name in files.items():
        os.utime(parts / name, (epoch, epoch))
        programs.run(["mcopy", "-m", "-i", str(esp), str(parts / name), f"::/{target}"])
