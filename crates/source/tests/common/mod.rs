//! A folder of images with an inventory over it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cairn_source::{ImagesConfig, Inventory, ServerConfig, SourceConfig};
use cairn_types::ResourceId;
use cairn_types::disk::{DiskReader, DiskWriter};

pub mod guest;
pub mod libvirt;
pub mod proxy;
pub mod records;

pub const MIB: u64 = 1 << 20;

/// A temporary folder that is the source `lab`.
pub struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// In a folder below another one.
    pub fn within(folder: &Path) -> Self {
        Self {
            folder: tempfile::tempdir_in(folder).unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> ImagesConfig {
        ImagesConfig {
            name: "lab".to_owned(),
            path: self.folder.path().to_owned(),
            project: None,
            reflinks: true,
            bitmaps: true,
            server: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    pub fn inventory(&self) -> Inventory {
        Inventory::new(vec![SourceConfig::Images(self.config())]).unwrap()
    }

    pub fn inventory_with_server(&self, name: &str, disks: &[&str]) -> Inventory {
        let disks = disks.iter().map(PathBuf::from).collect();
        let server = vec![ServerConfig::new(name, disks)];
        Inventory::new(vec![SourceConfig::Images(ImagesConfig {
            server,
            ..self.config()
        })])
        .unwrap()
    }

    pub fn id(&self, name: &str) -> ResourceId {
        let all = self.inventory().list().unwrap();
        all.iter()
            .find(|one| one.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .id
    }

    pub fn reader(&self, name: &str) -> Arc<dyn DiskReader> {
        self.inventory().open_reader(self.id(name)).unwrap()
    }

    pub fn writer(&self, name: &str) -> Arc<dyn DiskWriter> {
        self.inventory()
            .open_writer(self.id(name), u64::MAX)
            .unwrap()
    }

    /// Makes an empty file of this size.
    pub fn create(&self, name: &str, size_bytes: u64) -> File {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(size_bytes).unwrap();
        file
    }

    pub fn edit(&self, name: &str) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.path(name))
            .unwrap()
    }

    pub fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub fn metadata(&self, name: &str) -> Metadata {
        fs::metadata(self.path(name)).unwrap()
    }

    /// All bytes of a disk, as `qemu-img` sees them.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let format = if name.ends_with(".qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        if format == "raw" {
            return fs::read(self.path(name)).unwrap();
        }
        self.qemu_img(&["convert", "-f", format, "-O", "raw", name, "content.tmp"]);
        let content = fs::read(self.path("content.tmp")).unwrap();
        self.remove("content.tmp");
        content
    }

    pub fn qemu_img(&self, arguments: &[&str]) {
        self.run("qemu-img", arguments);
    }

    pub fn qemu_io(&self, name: &str, commands: &[&str]) {
        let mut arguments = vec!["-f", "qcow2"];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(name);
        self.run("qemu-io", &arguments);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("package qemu-utils is installed");
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Bytes that look random, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
