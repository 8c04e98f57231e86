//! A reader of format 1 that knows `docs/FORMAT.md` and nothing of the crate.
//! It trusts nothing and panics at anything that is not as the document says.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

type Key = [u8; 32];

/// The disks of a repository in a folder with one project: root and bytes of each.
pub fn read(folder: &Path, master: &str) -> Vec<(Key, Vec<u8>)> {
    let master: Key = hex::decode(master).unwrap().try_into().unwrap();
    let project = only(&folder.join("projects"));
    let id = hex::decode(project.file_name().unwrap().to_str().unwrap()).unwrap();
    let config = blake3::derive_key("cairn master key: repository config", &master);
    let config = open_object(
        &fs::read(folder.join("config")).unwrap(),
        b"CAIRNCFG",
        &config,
        b"",
    );
    let place = [&config[..16], &id].concat();
    let wrapped = fs::read(project.join("keys/1")).unwrap();
    let keys = blake3::derive_key("cairn root key: project keys", &config[16..]);
    let data = open_object(&wrapped, b"CAIRNKEY", &keys, &[&place[..], b"key"].concat());
    let derive =
        |context: &str| blake3::derive_key(&format!("cairn repository format 1: {context}"), &data);
    let mut reader = Reader {
        block: derive("block id"),
        node: derive("node id"),
        root: derive("root"),
        packs: derive("packs"),
        place,
        chunks: HashMap::new(),
    };
    for shelf in entries(&project.join("packs")) {
        for pack in entries(&shelf) {
            reader.read_pack(&fs::read(pack).unwrap());
        }
    }
    let (objects, receipts) = (derive("sealed objects"), derive("receipts"));
    let receipts = entries(&project.join("receipts")).into_iter().map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (root, hash) = reader.read_receipt(&fs::read(path).unwrap(), &receipts);
        let manifest = format!("{name}-{}", hex::encode(&hash[..8]));
        let manifest = fs::read(project.join("manifests").join(manifest)).unwrap();
        assert_eq!(manifest[manifest.len() - 32..], hash);
        let bound = [&reader.place[..], name.as_bytes()].concat();
        let plain = open_object(&manifest, b"CAIRNMAN", &objects, &bound);
        let disk = reader.read_manifest(&plain);
        assert!(disk.as_ref().is_none_or(|(found, _)| *found == root));
        disk
    });
    receipts.collect::<Vec<_>>().into_iter().flatten().collect()
}

struct Reader {
    block: Key,
    node: Key,
    root: Key,
    packs: Key,
    place: Vec<u8>,
    /// Every chunk of every pack, by its id.
    chunks: HashMap<Key, Vec<u8>>,
}

impl Reader {
    fn read_pack(&mut self, pack: &[u8]) {
        let pack = whole(pack);
        assert_eq!((&pack[..8], u16_at(pack, 8)), (&b"CAIRNPAK"[..], 1));
        let id: [u8; 16] = pack[10..26].try_into().unwrap();
        let key = *blake3::keyed_hash(&self.packs, &id).as_bytes();
        let bound = [&self.place[..], b"pack", &id].concat();
        let (front, trailer) = pack.split_at(pack.len() - 4);
        let (front, table) = front.split_at(front.len() - u32_at(trailer, 0));
        let table = open(&key, u32::MAX, &[&bound[..], b"table"].concat(), table);
        let frames = u32_at(&table, 0);
        let mut chunk_at = 4 + 10 * frames;
        let mut end = 26;
        for number in 0..frames {
            let (entry, offset) = (4 + 10 * number, u32_at(&table, 4 + 10 * number));
            assert_eq!(offset, end);
            end += u32_at(&table, entry + 4);
            let number = u32::try_from(number).unwrap();
            let chunks = self.read_frame(&key, &bound, number, &front[offset..end]);
            assert_eq!(chunks.len(), usize::from(u16_at(&table, entry + 8)));
            for (id, word) in chunks {
                assert_eq!(table[chunk_at..chunk_at + 32], id);
                assert_eq!(u32_at(&table, chunk_at + 32), word as usize);
                chunk_at += 36;
            }
        }
        assert_eq!((end, chunk_at), (front.len(), table.len()));
    }

    /// Keeps a frame's chunks and returns their ids, kinds and lengths.
    fn read_frame(
        &mut self,
        key: &Key,
        bound: &[u8],
        number: u32,
        frame: &[u8],
    ) -> Vec<(Key, u32)> {
        let (header, sealed) = frame.split_at(9);
        assert_eq!(u32_at(header, 5), sealed.len());
        let bound = [bound, &number.to_le_bytes(), header].concat();
        let text = open(key, number, &bound, sealed);
        let mut plain = vec![0; u32_at(header, 1)];
        match header[0] {
            0 => plain = text,
            1 => {
                let length = zstd_safe::decompress(&mut plain[..], &text).unwrap();
                assert_eq!(length, plain.len());
            }
            codec => panic!("codec {codec}"),
        }
        let count = usize::from(u16_at(&plain, plain.len() - 2));
        let words = plain.len() - 2 - 4 * count;
        let (mut at, mut found) = (0, Vec::new());
        for chunk in 0..count {
            let word = u32::try_from(u32_at(&plain, words + 4 * chunk)).unwrap();
            let bytes = &plain[at..at + (word & 0x7fff_ffff) as usize];
            at += bytes.len();
            let key = if word >> 31 == 1 {
                &self.node
            } else {
                &self.block
            };
            let id = *blake3::keyed_hash(key, bytes).as_bytes();
            self.chunks.insert(id, bytes.to_vec());
            found.push((id, word));
        }
        assert_eq!(at, words);
        found
    }

    /// The root, and the hash of the manifest.
    fn read_receipt(&self, receipt: &[u8], key: &Key) -> (Key, Key) {
        let receipt = whole(receipt);
        assert_eq!(
            (&receipt[..8], u16_at(receipt, 8), receipt.len()),
            (&b"CAIRNRCP"[..], 1, 138)
        );
        let (signed, signature) = receipt.split_at(receipt.len() - 32);
        let bound = [&self.place[..], b"receipt", signed].concat();
        assert_eq!(blake3::keyed_hash(key, &bound).as_bytes(), signature);
        (
            signed[26..58].try_into().unwrap(),
            signed[66..98].try_into().unwrap(),
        )
    }

    /// The root and bytes of a disk; nothing for a group.
    fn read_manifest(&self, plain: &[u8]) -> Option<(Key, Vec<u8>)> {
        let content = &plain[4 + u32_at(plain, 0)..];
        if content[0] != 1 {
            return None;
        }
        let size = usize::try_from(u64::from_le_bytes(content[1..9].try_into().unwrap())).unwrap();
        assert_eq!(u32_at(content, 9), 65_536);
        let top: Key = content[13..45].try_into().unwrap();
        let mut height = 1;
        while 256usize.pow(height) < size.div_ceil(65_536) {
            height += 1;
        }
        let description = [b"disk", &content[1..13], &[height as u8], &top].concat();
        let root = *blake3::keyed_hash(&self.root, &description).as_bytes();
        let mut disk = vec![0; size];
        self.fill(&mut disk, top, height, 0);
        Some((root, disk))
    }

    /// Fills in the part of a disk below a node; level 0 is a block.
    fn fill(&self, disk: &mut [u8], id: Key, level: u32, index: usize) {
        if id == [0; 32] {
            return;
        }
        let chunk = &self.chunks[&id];
        if level == 0 {
            let start = index * 65_536;
            let end = disk.len().min(start + 65_536);
            disk[start..end].copy_from_slice(chunk);
            return;
        }
        assert_eq!(u32::from(chunk[0]), level);
        let mut at = 33;
        for child in 0..256 {
            if chunk[1 + child / 8] >> (child % 8) & 1 == 1 {
                let id = chunk[at..at + 32].try_into().unwrap();
                self.fill(disk, id, level - 1, index * 256 + child);
                at += 32;
            }
        }
        assert_eq!(at, chunk.len());
    }
}

fn open_object(object: &[u8], magic: &[u8; 8], secret: &Key, binding: &[u8]) -> Vec<u8> {
    let object = whole(object);
    assert_eq!((&object[..8], u16_at(object, 8)), (&magic[..], 1));
    let key = *blake3::keyed_hash(secret, &object[10..26]).as_bytes();
    open(&key, 0, &[&object[..26], binding].concat(), &object[26..])
}

fn open(key: &Key, counter: u32, bound: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&counter.to_le_bytes());
    let mut text = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(bound), &mut text)
        .unwrap()
        .to_vec()
}

/// The bytes in front of an object's hash, which must be theirs.
fn whole(object: &[u8]) -> &[u8] {
    let (body, hash) = object.split_at(object.len() - 32);
    assert_eq!(blake3::hash(body).as_bytes(), hash);
    body
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    entries
}

fn only(folder: &Path) -> PathBuf {
    let entries = entries(folder);
    assert_eq!(entries.len(), 1);
    entries[0].clone()
}
