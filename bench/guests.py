#!/usr/bin/env python3
"""Times what is done with guests that run, and disks that are served: prints figures for docs/BENCHMARKS.md.

Run it by `make bench-guests`, on a machine that does nothing else: it needs QEMU and nbdcopy, which the tests install.
"""

import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from harness import CAIRN, MIB, Server, run, wait_for  # noqa: E402
from test_guests import CONFIG, DISKS, LARGE, Guest, IdleGuest, blockdevs, make_vault  # noqa: E402

ROUNDS = 7
CHANGED = 64


def say(what, value):
    print(f"{what:60} {value}", flush=True)


def median(values):
    return statistics.median(values)


def gaps(guest):
    return [int(number) * 10 for number in re.findall(rb"cairn guest: gap (\d+)", guest.console.read_bytes())]


def running_guest(folder):
    """How long a guest that writes all the time does not run while it is backed up, and without."""
    (folder / "images").mkdir()
    for name in DISKS:
        raw = folder / "new.raw"
        with open(raw, "wb") as file:
            file.truncate(256 * MIB)
        run("/usr/sbin/mkfs.ext4", "-q", "-F", raw)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "images" / name)
        raw.unlink()
    with Server(folder, CONFIG.format(folder=folder)) as server:
        guest = Guest(folder, blockdevs(folder)).ready()
        vault = make_vault(server, "v", "app_consistent")
        wait_for("a while without backups", lambda: len(gaps(guest)) >= 12)
        before = gaps(guest)[2:]
        for _ in range(6):
            seen = len(gaps(guest))
            server.back_up(vault)
            wait_for("the guest's next word", lambda seen=seen: len(gaps(guest)) > seen + 1)
        during = gaps(guest)[2 + len(before):]
        guest.kill()
    say("guest, longest time without running, idle, ms", f"{max(before)} (median {median(before)})")
    say("guest, longest time without running, six backups, ms", f"{max(during)} (median {median(during)})")


def large_disk(folder):
    """An incremental of a sparse disk of 64 GiB with 64 MiB changed."""
    guest = IdleGuest(folder)
    rng = random.Random(64)
    places = rng.sample(range(LARGE // MIB), 16 * CHANGED)
    content = folder / "content"

    def write(chosen):
        for place in chosen:
            content.write_bytes(rng.randbytes(MIB // 2) * 2)
            guest.write(content, place * MIB)

    with Server(folder, guest.config) as server:
        vault = make_vault(server, "large", "crash_consistent")
        write(places)
        server.back_up(vault)
        times = []
        for _ in range(ROUNDS):
            write(rng.sample(places, CHANGED))
            started = time.monotonic()
            server.back_up(vault)
            times.append(time.monotonic() - started)
        guest.kill()
    say("64 GiB sparse, 64 MiB changed, incremental, s", f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})")


def first_byte(path):
    """Connects, negotiates and reads 4 KiB; returns the seconds that took. Source: the NBD project's doc/proto.md."""
    started = time.monotonic()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))

        def read(length):
            parts = b""
            while len(parts) < length:
                parts += link.recv(length - len(parts)) or sys.exit("the server hung up")
            return parts

        read(18)
        link.sendall(struct.pack(">I", 3))
        # NBD_OPT_EXPORT_NAME, without a name: 10 bytes come back.
        link.sendall(struct.pack(">QII", 0x49484156454F5054, 1, 0))
        read(10)
        link.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4096))
        read(16 + 4096)
    return time.monotonic() - started


def exported_disk(folder):
    """A disk of which two thirds are data, through nbdcopy, beside its raw image."""
    workload = ROOT / "target/bench-guests"
    image = workload / "gen1.img"
    if not image.exists():
        options = ["--size-mib", "2048", "--tree-mib", "16"]
        subprocess.run([sys.executable, ROOT / "bench/workload.py", workload, *options], check=True)
    (folder / "images").mkdir()
    shutil.copy(image, folder / "images/disk.raw")
    image = folder / "images/disk.raw"
    config = "[[source]]\nkind = \"images\"\nname = \"lab\"\npath = \"images\"\n"
    with Server(folder, config) as server:
        vault = server.create_vault("v", "disk", server.protectables().values())
        backup = server.back_up(vault)
        path = folder / "socket"
        environment = {**os.environ, "CAIRN_CREDENTIALS": str(server.credentials_file)}
        serving = subprocess.Popen(
            [CAIRN, "backup", "serve", backup["id"], "--socket", path], stdout=subprocess.DEVNULL, env=environment
        )
        wait_for("a socket", path.exists)
        firsts = [first_byte(path) for _ in range(ROUNDS)]
        say("first byte, ms", f"{1000 * median(firsts):.1f} ({1000 * max(firsts):.1f} at most)")
        figures = {"raw": [], "cold": [], "cairn": []}
        for _ in range(ROUNDS):
            for name, source in (("raw", image), ("cold", image), ("cairn", f"nbd+unix:///?socket={path}")):
                if name == "cold":
                    with open(image, "rb") as file:
                        os.fsync(file.fileno())
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                started = time.monotonic()
                if name == "cairn":
                    run("nbdcopy", source, "null:")
                else:
                    run("nbdcopy", "--", "[", "qemu-nbd", "-r", "-f", "raw", source, "]", "null:")
                figures[name].append(time.monotonic() - started)
        serving.send_signal(signal.SIGTERM)
        serving.wait()
    for name, times in figures.items():
        say(f"nbdcopy, {name}, s", f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})")
    for name in ("raw", "cold"):
        ratio = median(there / ours for there, ours in zip(figures[name], figures["cairn"]))
        say(f"of the {name} image's speed", f"{100 * ratio:.0f} %")


def main():
    for part in (running_guest, large_disk, exported_disk):
        with tempfile.TemporaryDirectory(dir=os.environ.get("CAIRN_BENCH_DIR")) as folder:
            part(Path(folder))


main()
