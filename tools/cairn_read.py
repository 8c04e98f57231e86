#!/usr/bin/env python3
"""Reads a Cairn repository without Cairn; written from docs/FORMAT.md alone.

    pip install -r tools/requirements.txt                       (Python 3.11 or newer)
    cairn_read.py list REPOSITORY KEY_FILE
    cairn_read.py restore REPOSITORY KEY_FILE BACKUP TARGET
    cairn_read.py verify REPOSITORY

`restore` makes TARGET, which must not be there, under the name TARGET.part until it is whole: the image of a disk, with
holes where it was zero; a folder with an image of each disk of a server; or a tree of files, with owners and devices if
root runs it. `verify` needs no key: it compares every object with the hash that it ends in. Damage ends it all with 1.
"""
import json
import os
import stat
import struct
import sys
from functools import lru_cache
from pathlib import Path
from uuid import UUID
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT, BLOCK, FANOUT, ZERO, LAST = 1, 65_536, 256, bytes(32), 2**32 - 1
BLOCKS, NODES, ENTRIES, PIECES, IN_A_LIST = 0, 1, 0x80, 0x81, 255
TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
USES = ("block id", "node id", "root", "packs", "sealed objects", "receipts")
FAULTS = (ValueError, OSError, LookupError, struct.error, zstandard.ZstdError)
KINDS, FRAMES_KEPT = {1: "disk", 2: "group", 3: "tree"}, 16

def must(condition, problem):
    if not condition:
        raise ValueError(problem)

def keyed(key, data):
    return blake3(data, key=key).digest()

def derive(context, key):
    return blake3(key, derive_key_context=context).digest()

def part(path, start, count):
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(count)

def body_of(path):
    """An object's bytes without its hash; nothing if that is not theirs."""
    data = path.read_bytes()
    return data[:-32] if len(data) >= 32 and blake3(data[:-32]).digest() == data[-32:] else None

def unseal(key, counter, sealed, bound, name):
    try:
        return Fields(AESGCM(key).decrypt(struct.pack("<I8x", counter), sealed, bound), name)
    except InvalidTag:
        raise ValueError(f"{name} does not open: another key, another place, or damage") from None

def open_object(path, magic, secret, bound):
    fields = Fields(body_of(path), path).header(magic)
    return unseal(keyed(secret, fields.take(16)), 0, fields.data[26:], fields.data[:26] + bound, path)

class Fields:  # bytes that are read from front to back
    def __init__(self, data, name):
        must(data is not None, f"{name} is not as it was written")
        self.data, self.at, self.name = data, 0, name

    def take(self, count):
        must(count <= self.left(), f"{self.name} is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def get(self, codes):
        values = struct.unpack("<" + codes, self.take(struct.calcsize("<" + codes)))
        return values if len(values) > 1 else values[0]

    def header(self, magic):
        must(self.get("8sH") == (magic, FORMAT), f"{self.name} is of another kind, or not of format {FORMAT}")
        return self

    def left(self):
        return len(self.data) - self.at

class Project:
    def __init__(self, folder, repository_id, root_key):
        self.folder, self.place = folder, repository_id + bytes.fromhex(folder.name)
        secret = derive("cairn root key: project keys", root_key)
        key = open_object(folder / "keys/1", b"CAIRNKEY", secret, self.place + b"key").take(32)
        self.keys = {use: derive("cairn repository format 1: " + use, key) for use in USES}
        self.frame, self.packs, self.places = lru_cache(FRAMES_KEPT)(self.read_frame), {}, None

    def backup(self, name):
        """A backup's facts and content, once its receipt and its manifest agree."""
        receipt = Fields(body_of(self.folder / "receipts" / name), f"receipt {name}")
        identity, root, size, hash_of_manifest, _ = receipt.header(b"CAIRNRCP").get("16s32sQ32sq")
        signed = self.place + b"receipt" + receipt.data[: receipt.at]
        must(receipt.take(32) == keyed(self.keys["receipts"], signed), f"receipt {name} has a wrong signature")
        must(str(UUID(bytes=identity)) == name, f"receipt {name} is another backup's")
        path = self.folder / "manifests" / f"{name}-{hash_of_manifest[:8].hex()}"
        must(path.read_bytes()[-32:] == hash_of_manifest, f"manifest {name} is not the one of its receipt")
        fields = open_object(path, b"CAIRNMAN", self.keys["sealed objects"], self.place + name.encode())
        backup = {"id": name, "root": root, "info": json.loads(fields.take(fields.get("I")))}
        backup["kind"] = KINDS[fields.get("B")]
        if backup["kind"] == "disk":
            backup["size"], block, backup["top"], _ = fields.get("QI32sQ")
            described = struct.pack("<QIB", backup["size"], block, height(backup["size"])) + backup["top"]
            fields.take(16 * fields.get("B") + 16)
            fields.take(fields.get("B"))
        elif backup["kind"] == "group":
            start, backup["children"] = fields.at, [fields.get("16s32sQ") for _ in range(fields.get("I"))]
            backup["size"], described = sum(size for *_, size in backup["children"]), fields.data[start : fields.at]
        else:
            _, backup["top"] = fields.get("q"), Record(fields)
            backup["size"] = fields.get("QQQQQ")[3]
            for _ in range(fields.get("I")):
                _, _, _ = fields.get("B"), fields.take(fields.get("I")), fields.take(fields.get("I"))
            described = struct.pack("<Q", backup["size"]) + backup["top"].data
            fields.take(16 * fields.get("B"))
        must(not fields.left(), f"manifest {name} has bytes behind its end")
        found = (keyed(self.keys["root"], backup["kind"].encode() + described), backup["size"])
        must(found == (root, size), f"manifest {name} is of another root than its receipt")
        return backup

    def load(self):
        """Learns from the table of every pack where each chunk is. A pack that cannot be read holds none."""
        self.places = {}
        for path in sorted((self.folder / "packs").glob("*/*")):
            try:
                self.read_table(path, path.stat().st_size)
            except FAULTS as problem:
                print(f"left out: {problem}", file=sys.stderr)

    def read_table(self, path, size):
        identity = Fields(part(path, 0, 26), path).header(b"CAIRNPAK").take(16)
        key, bound = keyed(self.keys["packs"], identity), self.place + b"pack" + identity
        must(identity.hex() == path.name and size >= 62, f"{path} is another pack")
        length = Fields(part(path, size - 36, 4), path).get("I")
        must(length <= size - 62, f"{path} is cut short")
        fields = unseal(key, LAST, part(path, size - 36 - length, length), bound + b"table", f"the table of {path}")
        frames = [fields.get("IIH") for _ in range(fields.get("I"))]
        self.packs[path] = key, bound, frames
        for number, (*_, count) in enumerate(frames):
            for slot in range(count):
                self.places[fields.get("32sI")[0]] = path, number, slot

    def read_frame(self, path, number):
        """The chunks of a frame: kind and bytes of each."""
        name, (key, bound, frames) = f"frame {number} of {path}", self.packs[path]
        data = part(path, *frames[number][:2])
        codec, plain_bytes, sealed_bytes = Fields(data, name).get("BII")
        plain = unseal(key, number, data[9:], bound + struct.pack("<I", number) + data[:9], name).data
        if codec == 1:
            must(zstandard.frame_content_size(plain) == plain_bytes, f"{name} is longer than it says")
            plain = zstandard.ZstdDecompressor().decompress(plain)
        end = plain_bytes - 2 - 4 * struct.unpack("<H", plain[-2:])[0]
        must(codec <= 1 and sealed_bytes == len(data) - 9 and len(plain) == plain_bytes > end >= 0, f"{name} is malformed")
        fields, words = Fields(plain[:end], name), struct.iter_unpack("<I", plain[end:-2])
        chunks = [(word >> 31, fields.take(word & 0x7FFF_FFFF)) for (word,) in words]
        return chunks

    def chunk(self, identity, kind):
        """A chunk's bytes, which are what its id names."""
        if self.places is None:
            self.load()
        must(identity in self.places, f"chunk {identity.hex()} is in no pack that can be read")
        path, number, slot = self.places[identity]
        found, data = self.frame(path, number)[slot]
        must(found == kind and keyed(self.keys[USES[kind]], data) == identity, f"chunk {identity.hex()} is another")
        return data

    def blocks(self, node, level, index=0):
        """The number and id of each block below a node that is not zero."""
        if level == 0:
            yield index, node
        elif node != ZERO:
            fields = Fields(self.chunk(node, NODES), f"node {node.hex()}")
            found, bits = fields.get("B32s")
            must(found == level, f"{fields.name} is of another level")
            for child in (child for child in range(FANOUT) if bits[child // 8] >> child % 8 & 1):
                yield from self.blocks(fields.take(32), level - 1, index * FANOUT + child)

    def items(self, kind, level, node):
        """The fields of a list's leaves, at each item in turn."""
        fields = Fields(self.chunk(node, NODES), f"node {node.hex()}")
        must(fields.get("BB") == (kind, level), f"{fields.name} is of another list")
        while fields.left():
            if level == 0:
                yield fields
            else:
                below = fields.take(32)
                fields.take(fields.get("B") if kind == ENTRIES else 8)
                yield from self.items(kind, level - 1, below)

    def restore(self, backup, target):
        if backup["kind"] == "tree":
            return self.restore_entry(backup["top"], os.fsencode(target), {})
        if backup["kind"] == "disk":
            return self.restore_disk(backup["top"], backup["size"], target)
        target.mkdir()
        for identity, root, size in backup["children"]:
            child = self.backup(str(UUID(bytes=identity)))
            must((child["root"], child["size"]) == (root, size), f"disk {child['id']} is not its group's")
            self.restore_disk(child["top"], size, target / f"{child['id']}.img")

    def restore_disk(self, top, size, target):
        with open(target, "xb") as file:
            file.truncate(size)
            for number, block in self.blocks(top, height(size)) if size else ():
                data = self.chunk(block, BLOCKS)
                must(len(data) == min(BLOCK, size - number * BLOCK), f"block {number} has another length")
                file.seek(number * BLOCK)
                file.write(data)

    def restore_entry(self, record, path, linked):
        if record.linked and linked.setdefault(record.data, path) != path:
            return os.link(linked[record.data], path)
        if record.type == stat.S_IFDIR:
            os.mkdir(path)
            for fields in self.items(ENTRIES, *record.list):
                name = fields.take(fields.get("B"))
                must(name not in (b"", b".", b"..") and not set(name) & {0, 47}, f"{fields.name} has an impossible name")
                self.restore_entry(Record(fields), os.path.join(path, name), linked)
        elif record.type == stat.S_IFREG:
            listed = (fields.get("32sQ") for fields in self.items(PIECES, *record.list)) if record.list else ()
            with open(path, "xb") as file:
                for identity, length in (*record.pieces, *listed):
                    data = b"" if identity == ZERO else self.chunk(identity, BLOCKS)
                    must(len(data) in (0, length), f"a piece of {os.fsdecode(path)} has another length")
                    file.write(data)
                    file.seek(length - len(data), os.SEEK_CUR)
                must(file.tell() == record.size, f"{os.fsdecode(path)} has another length than its pieces")
                file.truncate()
        elif record.type == stat.S_IFLNK:
            os.symlink(record.target, path)
        else:
            os.mknod(path, record.type, os.makedev(*record.device))
        record.apply(path)

class Record:  # an entry of a directory, without its name
    def __init__(self, fields):
        start = fields.at
        kind, self.mode, self.uid, self.gid, seconds, nanoseconds, _, _, _ = fields.get("BHIIqIqIQ")
        must(kind & 127 < len(TYPES), f"{fields.name} has an entry of an unknown kind")
        self.type, self.linked, self.modified = TYPES[kind & 127], kind >> 7, seconds * 10**9 + nanoseconds
        pair = lambda: (fields.take(fields.get("B")), fields.take(fields.get("I")))
        self.attributes = [pair() for _ in range(fields.get("H"))]
        self.list, self.pieces, self.device, count = None, [], (0, 0), 0
        if self.type == stat.S_IFREG:
            self.size, count = fields.get("QB")
            self.pieces = [fields.get("32sQ") for _ in range(count if count != IN_A_LIST else 0)]
        elif self.type == stat.S_IFLNK:
            self.target = fields.take(fields.get("H"))
        elif self.type in (stat.S_IFCHR, stat.S_IFBLK):
            self.device = fields.get("II")
        if self.type == stat.S_IFDIR or count == IN_A_LIST:
            self.list = fields.get("B32s")
        self.data = fields.data[start : fields.at]

    def apply(self, path):
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        if self.type != stat.S_IFLNK:
            os.chmod(path, self.mode)
        for name, value in self.attributes:
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(self.modified, self.modified), follow_symlinks=False)

def height(size):
    return next(level for level in range(1, 9) if FANOUT**level * BLOCK >= size)

def open_projects(folder, key_file):
    secret = derive("cairn master key: repository config", bytes.fromhex(Path(key_file).read_text()))
    keys = open_object(Path(folder, "config"), b"CAIRNCFG", secret, b"").get("16s32s")
    return [Project(path, *keys) for path in sorted(Path(folder, "projects").iterdir())]

def list_backups(folder, key_file):
    for project in open_projects(folder, key_file):
        for backup in [project.backup(path.name) for path in sorted(project.folder.glob("receipts/*"))]:
            print(backup["id"], backup["kind"], backup["size"], backup["info"]["name"], sep="\t")

def restore(folder, key_file, name, target):
    holders = [p for p in open_projects(folder, key_file) if (p.folder / "receipts" / str(UUID(name))).exists()]
    must(holders, f"there is no backup {name}")
    must(not os.path.lexists(target), f"{target} is there already")
    holders[0].restore(holders[0].backup(str(UUID(name))), Path(f"{target}.part"))
    os.rename(f"{target}.part", target)

def verify(folder):
    must(Path(folder, "config").exists(), f"there is no repository in {folder}")
    paths = [p for p in sorted(Path(folder).rglob("*")) if p.is_file() and "/." not in f"/{p.relative_to(folder)}"]
    damaged = [str(path) for path in paths if body_of(path) is None]
    must(not damaged, "not as they were written: " + ", ".join(damaged))

if __name__ == "__main__":
    commands = {("list", 2): list_backups, ("restore", 4): restore, ("verify", 1): verify}
    command = commands.get(("".join(sys.argv[1:2]), len(sys.argv) - 2)) or sys.exit(__doc__)
    try:
        command(*sys.argv[2:])
    except FAULTS as problem:
        sys.exit(f"cairn_read: {problem}")
