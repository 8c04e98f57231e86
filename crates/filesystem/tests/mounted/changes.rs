//! Random changes to a tree, of all sorts that a log keeps in different ways.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, ioctl_ficlone, makedev, mknodat,
    setxattr,
};

use crate::common::{Numbers, run, text};

/// What is there, as far as it is to be changed.
pub struct Changes<'n> {
    root: PathBuf,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    made: usize,
    numbers: &'n mut Numbers,
}

impl<'n> Changes<'n> {
    pub fn new(root: &Path, numbers: &'n mut Numbers) -> Self {
        Self {
            root: root.to_owned(),
            files: Vec::new(),
            directories: vec![root.to_owned()],
            made: 0,
            numbers,
        }
    }

    pub fn make(&mut self, count: usize) {
        for _ in 0..count {
            self.change();
        }
    }

    fn change(&mut self) {
        match self.numbers.below(40) {
            0..8 => self.create(),
            8..13 => self.write(),
            13..17 => self.rename(),
            17..21 => self.remove(),
            21..23 => self.make_directory(),
            23..25 => {
                let length = *self.numbers.one_of(&[3, 59, 180, 400, 1000]);
                let path = self.new_path();
                symlink("x/".repeat(length / 2), path).unwrap();
            }
            25..27 => self.mark(),
            27..29 => self.cut(),
            29..31 => self.share(),
            31 => self.crowd(),
            32 => self.clear(),
            33 => self.scatter(),
            34 => {
                if let Some(file) = self.file() {
                    fs::hard_link(file, self.new_path()).unwrap();
                }
            }
            35 => {
                let mode = Mode::from_raw_mode(0o600);
                let device = makedev(8, self.numbers.below(1000) as u32);
                mknodat(CWD, self.new_path(), FileType::BlockDevice, mode, device).unwrap();
            }
            36..38 => {
                if let Some(file) = self.file() {
                    File::open(file).unwrap().sync_all().unwrap();
                }
            }
            // What is written back is not to be replayed once more.
            38 if self.numbers.one_in(3) => {
                run("sync", &["--file-system", text(&self.root)]);
            }
            38 if self.numbers.one_in(10) => {
                // To the end of the image, if it does not reach there yet.
                run("xfs_growfs", &[text(&self.root)]);
            }
            _ => self.room(),
        }
    }

    fn new_path(&mut self) -> PathBuf {
        self.made += 1;
        let width = self.numbers.below(100) as usize;
        let name = format!("n{:0width$}", self.made);
        self.numbers.one_of(&self.directories).join(name)
    }

    fn file(&mut self) -> Option<PathBuf> {
        (!self.files.is_empty()).then(|| self.numbers.one_of(&self.files).clone())
    }

    fn create(&mut self) {
        let path = self.new_path();
        let length = *self.numbers.one_of(&[0, 10, 3000, 20_000, 200_000]);
        let file = File::create(&path).unwrap();
        file.write_all_at(&self.numbers.bytes(length), 0).unwrap();
        self.files.push(path);
    }

    fn open(&mut self) -> Option<File> {
        let path = self.file()?;
        Some(OpenOptions::new().write(true).open(path).unwrap())
    }

    fn write(&mut self) {
        if let Some(file) = self.open() {
            let offset = self.numbers.below(1 << 20);
            let length = self.numbers.below(30_000) as usize;
            file.write_all_at(&self.numbers.bytes(length), offset)
                .unwrap();
        }
    }

    fn rename(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let index = self.numbers.below(self.files.len() as u64) as usize;
        let from = self.files.swap_remove(index);
        // Over another at times, which is gone then.
        let to = if self.numbers.one_in(3) && !self.files.is_empty() {
            let index = self.numbers.below(self.files.len() as u64) as usize;
            self.files.swap_remove(index)
        } else {
            self.new_path()
        };
        fs::rename(from, &to).unwrap();
        self.files.push(to);
    }

    fn remove(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let index = self.numbers.below(self.files.len() as u64) as usize;
        fs::remove_file(self.files.swap_remove(index)).unwrap();
    }

    fn make_directory(&mut self) {
        let path = self.new_path();
        fs::create_dir(&path).unwrap();
        self.directories.push(path);
    }

    /// Attributes move what is in an inode.
    fn mark(&mut self) {
        let path = self.numbers.one_of(&self.directories).clone();
        let path = self
            .file()
            .filter(|_| self.made.is_multiple_of(2))
            .unwrap_or(path);
        let length = *self.numbers.one_of(&[5, 80, 1500, 9000]);
        let value = self.numbers.bytes(length);
        let name = format!("user.{}", self.numbers.below(4));
        setxattr(path, name, &value, XattrFlags::empty()).unwrap();
    }

    fn cut(&mut self) {
        if let Some(file) = self.open() {
            let length = *self.numbers.one_of(&[0, 100, 5000, 100_000, 3_000_000]);
            file.set_len(length).unwrap();
        }
    }

    /// Two files share their blocks, and one is written to.
    fn share(&mut self) {
        let Some(from) = self.file() else { return };
        let path = self.new_path();
        let copy = File::create(&path).unwrap();
        // Not all are made with such sharing.
        if ioctl_ficlone(&copy, File::open(from).unwrap()).is_ok() {
            let offset = self.numbers.below(20_000);
            copy.write_all_at(&self.numbers.bytes(5000), offset)
                .unwrap();
        }
        self.files.push(path);
    }

    /// Many names in one directory.
    fn crowd(&mut self) {
        let folder = self.new_path();
        fs::create_dir(&folder).unwrap();
        for index in 0..*self.numbers.one_of(&[20, 100, 600]) {
            let width = 10 + index % 80;
            let path = folder.join(format!("{index:0width$}"));
            File::create(&path).unwrap();
            if index % 3 == 0 {
                fs::remove_file(&path).unwrap();
            } else {
                self.files.push(path);
            }
        }
        self.directories.push(folder);
    }

    /// A directory goes with all that is in it: blocks and inodes are given up, and come again as something else.
    fn clear(&mut self) {
        if self.directories.len() < 3 {
            return;
        }
        let index = 1 + self.numbers.below(self.directories.len() as u64 - 1) as usize;
        let folder = self.directories.swap_remove(index);
        fs::remove_dir_all(&folder).unwrap();
        self.files.retain(|path| !path.starts_with(&folder));
        self.directories.retain(|path| !path.starts_with(&folder));
    }

    /// So many extents that they take a tree, which is written again and again.
    fn scatter(&mut self) {
        let Some(file) = self.open() else { return };
        for index in 0..*self.numbers.one_of(&[10, 60, 400]) {
            file.write_all_at(&[7; 100], index * 3 * 4096).unwrap();
        }
        if self.numbers.one_in(2) {
            file.sync_all().unwrap();
        }
    }

    fn room(&mut self) {
        let Some(file) = self.open() else { return };
        let offset = self.numbers.below(500_000);
        fallocate(&file, FallocateFlags::empty(), offset, 200_000).unwrap();
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, holes, offset, 50_000).unwrap();
    }
}
