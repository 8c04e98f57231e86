#!/usr/bin/env python3
"""Makes the disk images and the file trees that Cairn's speed is measured on. No root.

    bench/workload.py FOLDER [--size-mib 4096] [--tree-mib 1600] [--seed 1]

gen1.img  a GPT disk with an ext4 root at 1 MiB: libraries and programs of this
          machine, 1/8 incompressible media, 1/16 a paged database, a log, and
          about 36 % holes
gen2.img  the same disk a day later: upgraded files, new logs, 4 KiB pages of
          the database overwritten in place, one upload, one deletion; about
          5 % of its 64 KiB blocks differ
tree1     headers, documents, scripts, programs and libraries of this machine:
          some 64,000 files
tree2     the same tree a day later: of a hundred files one was rebuilt, of a
          thousand three are gone and four have come; the others are the same
          files by hard links
stats.json  what became of these shares

The same seed on the same machine makes the same files and the same changes;
where in the image mke2fs puts them may differ.
"""

import argparse
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid
import zlib
from pathlib import Path

MIB = 1 << 20
SECTOR = 512
PAGE = 4096
DB_PAGE = 8192
BLOCK = 64 << 10
ROOT_AT = MIB
# One line per kind of message; the numbers in it are drawn for each line.
LOG_FORMS = (
    "sshd[{a}]: Accepted publickey for deploy from 10.{b}.{c}.{d} port {e}",
    "nginx: 10.{b}.{c}.{d} GET /api/v1/items/{e}?page={b} 200 {a} {e}ms",
    "systemd[1]: Started session {a} of user app-{b}",
    "kernel: eth0: link is up, {b} Gbit/s, irq {c}",
    "app[{a}]: request {e} done in {b}.{c} ms, cache {d} hits",
    "postgres[{a}]: checkpoint complete: wrote {e} buffers, {b} files synced",
)
HOST_FOLDERS = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/include")
SAFE_NAME = re.compile(r"[A-Za-z0-9._+/-]+")
LARGEST_FILE = 64 * MIB
# What the tree is made of, the smallest files first.
TREE_FOLDERS = (
    "/usr/include", "/usr/share", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/git-core",
    "/usr/bin", "/usr/lib/x86_64-linux-gnu",
)


def run(*command, **kwargs):
    """Runs a program and returns what it printed; its errors are ours."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def host_files(tops=HOST_FOLDERS):
    """Regular files of this machine in a fixed order, with their sizes."""
    for top in tops:
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not SAFE_NAME.fullmatch(path) or os.path.islink(path) or not os.path.isfile(path):
                    continue
                size = os.path.getsize(path)
                if 0 < size <= LARGEST_FILE and os.access(path, os.R_OK):
                    yield path, size


def copy_host(tree, limit):
    """Copies host files into the tree until they take `limit` bytes; returns their paths."""
    taken = []
    for path, size in host_files():
        if limit < MIB:
            break
        if size > limit:
            continue
        target = tree / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        taken.append(path)
        limit -= -(-size // PAGE) * PAGE
    return taken


def write_noise(path, size, rng):
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - at)))


def write_log(path, size, rng):
    hosts = [[rng.randrange(256) for _ in range(3)] for _ in range(300)]
    second, written = 1_763_700_000, 0
    with open(path, "w", encoding="ascii") as file:
        while written < size:
            second += rng.randrange(3)
            b, c, d = rng.choice(hosts)
            form = rng.choice(LOG_FORMS)
            line = form.format(a=rng.randrange(300, 65000), b=b, c=c, d=d, e=rng.randrange(10**6))
            written += file.write(f"{second} vm01 {line}\n")


def db_page(number, rng, texts):
    """A page with a header, rows in two thirds of it or so, and zeros behind them.

    Its second half is never all zero: mke2fs would leave that out.
    """
    page = bytearray(struct.pack("<QQHHI", number, rng.getrandbits(64), 24, DB_PAGE, 0))
    full = rng.randrange(DB_PAGE // 2 + 64, DB_PAGE - 600)
    while len(page) < full:
        page += struct.pack("<IQd", rng.getrandbits(24), rng.getrandbits(40), rng.random())
        page += rng.choice(texts)
    return bytes(page.ljust(DB_PAGE, b"\0"))


def db_texts(rng):
    words = [bytes(rng.choices(b"etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(500)]
    return [b" ".join(rng.choices(words, k=rng.randrange(4, 14))) + b"\0" for _ in range(2000)]


def gpt(size, partitions, rng):
    """The protective MBR, and the table for the start and the end of a disk of `size` bytes."""

    def new_id():
        return uuid.UUID(bytes=rng.randbytes(16), version=4).bytes_le

    last, disk = size // SECTOR - 1, new_id()
    table = b"".join(
        struct.pack("<16s16sQQQ72x", uuid.UUID(kind).bytes_le, new_id(), first, end, 0)
        for kind, first, end in partitions
    ).ljust(128 * 128, b"\0")

    def header(own, other, table_at):
        def pack(crc):
            return struct.pack(
                "<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, crc, 0, own, other,
                34, last - 33, disk, table_at, 128, 128, zlib.crc32(table),
            )

        return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")

    sectors = min(last, 0xFFFFFFFF)
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, sectors)
    mbr = bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"
    start = mbr + header(1, last, 2) + table
    return start, table + header(last, 1, last - 32)


def make_gen1(image, size, seed):
    """Builds the first image; returns the host files in it."""
    rng = random.Random(f"gen1 {seed}")
    swap = size // 16
    root_bytes = size - swap - 2 * MIB
    with tempfile.TemporaryDirectory(dir=image.parent) as folder:
        tree = Path(folder)
        files = copy_host(tree, size * 41 // 100)
        for part in ("srv/media", "srv/db", "var/log"):
            (tree / part).mkdir(parents=True)
        for clip in range(8):
            write_noise(tree / f"srv/media/clip{clip}.bin", size // 64, rng)
        texts = db_texts(rng)
        with open(tree / "srv/db/table.db", "wb") as file:
            for number in range(size // 16 // DB_PAGE):
                file.write(db_page(number, rng, texts))
        write_log(tree / "var/log/syslog", size // 128, rng)

        part = image.with_suffix(".part")
        part.unlink(missing_ok=True)
        with open(part, "wb") as file:
            file.truncate(size)
        ids = [str(uuid.UUID(bytes=rng.randbytes(16), version=4)) for _ in range(2)]
        run(
            "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", ids[0], "-d", tree,
            "-E", f"offset={ROOT_AT},hash_seed={ids[1]},root_owner=0:0", part, f"{root_bytes // 1024}k",
            env={**os.environ, "E2FSPROGS_FAKE_TIME": "1763700000"},
        )
    first_swap = (ROOT_AT + root_bytes) // SECTOR
    start, end = gpt(
        size,
        [
            ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", ROOT_AT // SECTOR, first_swap - 1),
            ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", first_swap, (size - MIB) // SECTOR - 1),
        ],
        rng,
    )
    with open(part, "r+b") as file:
        file.write(start)
        file.seek(size - len(end))
        file.write(end)
    part.rename(image)
    return files


def rebuilt(content, rng):
    """What an upgrade makes of a file: scattered edits, and sometimes bytes put in between."""
    content = bytearray(content)
    for _ in range(max(1, len(content) // 2000)):
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    if rng.random() < 0.5:
        at = rng.randrange(len(content))
        content[at:at] = rng.randbytes(rng.randrange(1, 64))
    return bytes(content)


def physical_blocks(root, path):
    """Where in the file system the blocks of a file lie, in the order of the file."""
    blocks = []
    for line in run("debugfs", "-R", f"dump_extents {path}", root).splitlines():
        # level / depth, entry / entries, first - last logical, first - last physical, count
        numbers = [int(word) for word in re.findall(r"\d+", line)]
        if len(numbers) >= 9 and numbers[0] == numbers[1]:
            blocks.extend(range(numbers[6], numbers[7] + 1))
    return blocks


def make_gen2(old, image, seed, files):
    """Builds the second image: the first one after a day of work."""
    rng = random.Random(f"gen2 {seed}")
    size = old.stat().st_size
    part = image.with_suffix(".part")
    run("cp", "--sparse=always", old, part)
    root = f"{part}?offset={ROOT_AT}"
    with tempfile.TemporaryDirectory(dir=image.parent) as folder:
        new, commands = Path(folder), []

        def put(path, name):
            commands.extend([f"cd {os.path.dirname(path)}", f"write {name} {os.path.basename(path)}"])

        budget = size // 100
        for number, path in enumerate(rng.sample(files, len(files))):
            if budget <= 0:
                break
            content = Path(path).read_bytes()
            # Small files would each touch a block of their own, and be most of the change.
            if not BLOCK // 4 <= len(content) <= size // 600:
                continue
            name = new / f"upgrade{number}"
            name.write_bytes(rebuilt(content, rng))
            commands.append(f"rm {path}")
            put(path, name)
            budget -= len(content)
        write_log(new / "syslog", size // 200, rng)
        put("/var/log/syslog.1", new / "syslog")
        write_log(new / "access", size // 400, rng)
        put("/var/log/access.log", new / "access")
        commands.append("rm /srv/media/clip3.bin")
        write_noise(new / "upload", size // 100, rng)
        put("/srv/media/upload.bin", new / "upload")
        writes = size // MIB * 3 // 4
        texts = db_texts(rng)
        with open(new / "wal", "wb") as file:
            for number in range(writes):
                file.write(struct.pack("<QQQ", number, rng.getrandbits(64), 0))
                file.write(db_page(number, rng, texts)[:PAGE])
        put("/srv/db/table.db-wal", new / "wal")
        script = new / "script"
        script.write_text("\n".join(commands) + "\n", encoding="ascii")
        run(
            "debugfs", "-w", "-f", script, root,
            env={**os.environ, "E2FSPROGS_FAKE_TIME": "1763786400"},
        )
    blocks = physical_blocks(root, "/srv/db/table.db")
    if len(blocks) * PAGE != size // 16 // DB_PAGE * DB_PAGE:
        sys.exit("debugfs does not tell where the database lies")
    with open(part, "r+b") as file:
        for _ in range(writes):
            hot = len(blocks) // 5 if rng.random() < 0.8 else len(blocks)
            page = rng.randrange(hot)
            file.seek(ROOT_AT + blocks[page] * PAGE)
            file.write(db_page(page, rng, texts)[:PAGE])
    part.rename(image)


def changed(old, new, block):
    """How many blocks of two images of one size differ."""
    count = 0
    with open(old, "rb") as one, open(new, "rb") as two:
        while piece := one.read(4 * MIB):
            other = two.read(4 * MIB)
            if piece != other:
                for at in range(0, len(piece), block):
                    count += piece[at : at + block] != other[at : at + block]
    return count


def make_tree1(tree, limit):
    """Copies files of this machine until they take `limit` bytes; returns how many."""
    shutil.rmtree(tree, ignore_errors=True)
    count = 0
    for path, size in host_files(TREE_FOLDERS):
        if limit <= 0:
            break
        target = tree / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        limit -= size
        count += 1
    return count


def make_tree2(old, tree, seed):
    """Builds the second tree: the first one after a day of work. Returns how many files changed."""
    rng = random.Random(f"tree2 {seed}")
    shutil.rmtree(tree, ignore_errors=True)
    count = 0
    for folder, folders, names in os.walk(old):
        folders.sort()
        new = tree / Path(folder).relative_to(old)
        new.mkdir(parents=True)
        for name in sorted(names):
            source, lot = Path(folder) / name, rng.random()
            count += lot < 0.013
            if lot < 0.003:
                continue
            if lot < 0.013 and source.stat().st_size <= 8 * MIB:
                (new / name).write_bytes(rebuilt(source.read_bytes(), rng))
            else:
                os.link(source, new / name)
            if 0.5 < lot < 0.504:
                (new / f"{name}.new").write_bytes(rng.randbytes(rng.randrange(200, 40000)))
                count += 1
        shutil.copystat(folder, new)
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size-mib", type=int, default=4096)
    parser.add_argument("--tree-mib", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.size_mib < 64:
        parser.error("--size-mib must be at least 64")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    options.folder.mkdir(parents=True, exist_ok=True)
    stats = options.folder / "stats.json"
    wanted = {"size_mib": options.size_mib, "tree_mib": options.tree_mib, "seed": options.seed}
    if stats.exists() and wanted.items() <= json.loads(stats.read_text()).items():
        return
    gen1, gen2 = options.folder / "gen1.img", options.folder / "gen2.img"
    files = make_gen1(gen1, options.size_mib * MIB, options.seed)
    make_gen2(gen1, gen2, options.seed, files)
    size = gen1.stat().st_size
    blocks = changed(gen1, gen2, BLOCK)
    tree1, tree2 = options.folder / "tree1", options.folder / "tree2"
    tree_files = make_tree1(tree1, options.tree_mib * MIB)
    tree_changes = make_tree2(tree1, tree2, options.seed)
    told = {
        **wanted,
        "allocated_mib": gen1.stat().st_blocks * 512 // MIB,
        "holes_percent": round(100 - gen1.stat().st_blocks * 512 * 100 / size, 1),
        "changed_64k_blocks": blocks,
        "changed_percent": round(blocks * BLOCK * 100 / size, 2),
        "tree_files": tree_files,
        "tree_changes": tree_changes,
    }
    stats.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
