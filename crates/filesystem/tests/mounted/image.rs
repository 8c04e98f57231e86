//! Images of file systems, filled through a mount.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fsetxattr};
use tempfile::TempDir;

use crate::changes::Changes;
use crate::common::{Numbers, RawDisk, create, folder, run, text};
use crate::damaged_logs::{active, log_blocks};
use crate::tree::{self, Plan};
use crate::{copy, succeeds};

/// A file system in a file.
pub struct Image {
    pub file: PathBuf,
    folder: TempDir,
}

impl Image {
    pub fn ext(kind: &str, options: &str, plan: &Plan, numbers: &mut Numbers) -> Self {
        let program = format!("mkfs.{kind}");
        let mut all = vec!["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        all.extend(options.split(' '));
        Self::make(&program, &all, plan.ext_bytes, plan, numbers)
    }

    pub fn xfs(options: &str, plan: &Plan, numbers: &mut Numbers) -> Self {
        let mut all = vec!["-q", "-f"];
        all.extend(options.split(' '));
        // mkfs.xfs makes none below 300 MiB.
        Self::make("mkfs.xfs", &all, 320 << 20, plan, numbers)
    }

    /// One that was filled, changed at random, and cut off as by a loss of power.
    pub fn xfs_cut(options: &str, changes: usize, numbers: &mut Numbers) -> Self {
        let image = Self::xfs(options, &Plan::USUAL, numbers);
        // A log with stripes has records of their size.
        let sizes: &[&str] = match options.contains("su=") || options.contains("sunit=") {
            true => &["noatime"],
            false => &["logbsize=32k", "logbsize=64k", "logbsize=256k"],
        };
        let mounted = Mounted::new(&image.file, &[*numbers.one_of(sizes)]);
        if options.contains("unsupported") {
            image.fill_log(mounted.path());
        }
        let mut all = Changes::new(mounted.path(), numbers);
        all.make(changes / 2);
        let synced = std::fs::File::create(mounted.path().join("synced")).unwrap();
        synced.sync_all().unwrap();
        all.make(changes - changes / 2);
        // With the log as far as it is in memory, or without that.
        let cut = *numbers.one_of(&["shutdown -f", "shutdown -f", "shutdown"]);
        run("xfs_io", &["-x", "-c", cut, text(mounted.path())]);
        drop(mounted);
        image
    }

    /// Writes to a small log until its end is near, so that what comes goes over it.
    fn fill_log(&self, root: &Path) {
        let disk = RawDisk::open(&self.file);
        let near = log_blocks(&disk) - 600;
        let file = File::create(root.join("filler")).unwrap();
        for index in 0..10_000 {
            let value = vec![index as u8; 3000];
            fsetxattr(&file, "user.filler", &value, XattrFlags::empty()).unwrap();
            file.sync_all().unwrap();
            if index % 10 == 9 {
                let last = active(&disk).into_keys().next_back();
                if last.is_some_and(|lsn| lsn & 0xffff_ffff > near) {
                    return;
                }
            }
        }
        panic!("the log does not come to its end");
    }

    fn make(
        program: &str,
        options: &[&str],
        size_bytes: u64,
        plan: &Plan,
        numbers: &mut Numbers,
    ) -> Self {
        let folder = folder();
        let file = folder.path().join("image");
        create(&file, size_bytes);
        let mut arguments = options.to_vec();
        arguments.push(text(&file));
        run(program, &arguments);
        let image = Self { file, folder };
        image.fill(plan, numbers);
        image
    }

    fn fill(&self, plan: &Plan, numbers: &mut Numbers) {
        // Nothing is written back before its time, so that there is something to recover.
        let options: &[&str] = if plan.dirty { &["noatime"] } else { &[] };
        let mounted = Mounted::new(&self.file, options);
        tree::grow(mounted.path(), plan, numbers);
        if !plan.dirty && !plan.frozen {
            return;
        }
        let taken = self.folder.path().join("taken");
        if plan.frozen {
            run("fsfreeze", &["--freeze", text(mounted.path())]);
            copy(&self.file, &taken);
            run("fsfreeze", &["--unfreeze", text(mounted.path())]);
        } else {
            run("sync", &["--file-system", text(mounted.path())]);
            tree::change(mounted.path(), numbers);
            run("sync", &["--file-system", text(mounted.path())]);
            copy(&self.file, &taken);
        }
        drop(mounted);
        std::fs::rename(&taken, &self.file).unwrap();
    }
}

/// How often an unmount is tried.
const UNMOUNTS_MAX: usize = 1000;

/// A file system in a file, mounted until it is dropped.
pub struct Mounted {
    folder: TempDir,
    /// The file that is mounted, if it is a copy.
    _copy: Option<TempDir>,
}

impl Mounted {
    pub fn new(file: &Path, options: &[&str]) -> Self {
        let folder = folder();
        let mut all = vec!["loop"];
        all.extend(options);
        run(
            "mount",
            &["-o", &all.join(","), text(file), text(folder.path())],
        );
        Self {
            folder,
            _copy: None,
        }
    }

    /// A copy, so that what a recovery writes is not seen by who reads the image.
    pub fn copy_of(image: &Image) -> Self {
        let folder = folder();
        let file = folder.path().join("copy");
        copy(&image.file, &file);
        let mut mounted = Self::new(&file, &["noatime"]);
        mounted._copy = Some(folder);
        mounted
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = text(self.folder.path());
        // What another test is about to start has its files open too until it runs: they are
        // gone in a moment, and only then is the image what it is to be.
        if (0..UNMOUNTS_MAX).any(|_| succeeds("umount", &[path])) {
            return;
        }
        // A frozen one cannot be unmounted; it is frozen only where the test failed.
        succeeds("fsfreeze", &["--unfreeze", path]);
        if !succeeds("umount", &["--lazy", path]) {
            eprintln!("{path} is still mounted");
        }
    }
}

/// Whether mounts do not work here, and nobody minds.
pub fn mounts_are_excused() -> bool {
    let folder = folder();
    let (file, point) = (folder.path().join("image"), folder.path().join("point"));
    create(&file, 1 << 20);
    std::fs::create_dir(&point).unwrap();
    run("mkfs.ext2", &["-q", "-F", text(&file)]);
    if succeeds("mount", &["-o", "loop", text(&file), text(&point)]) {
        run("umount", &[text(&point)]);
        return false;
    }
    let excused = std::env::var("CAIRN_NO_MOUNTS").is_ok_and(|value| value == "1");
    assert!(
        excused,
        "an image cannot be mounted here, so nothing can be compared: run as root where loop devices \
         are permitted, or set CAIRN_NO_MOUNTS=1 to go without"
    );
    eprintln!("NOT TESTED: images cannot be mounted here, and CAIRN_NO_MOUNTS=1 excuses it");
    true
}

/// In which form XFS keeps an inode: the type in its mode, and the format of its content.
pub fn form(file: &Path, inode: u64) -> (u16, u8) {
    let start = inode_start(file, inode);
    let file = File::open(file).unwrap();
    (
        (number(&file, start + 2, 2) >> 12) as u16,
        number(&file, start + 5, 1) as u8,
    )
}

/// Where XFS has an inode, in bytes.
pub fn inode_start(file: &Path, inode: u64) -> u64 {
    let file = File::open(file).unwrap();
    let number = |offset, length| number(&file, offset, length);
    let (block_bytes, group_blocks, inode_bytes) = (number(4, 4), number(84, 4), number(104, 2));
    let (in_block, in_group) = (number(123, 1), number(124, 1));
    let group = inode >> (in_block + in_group);
    let block = inode >> in_block & ((1 << in_group) - 1);
    let index = inode & ((1 << in_block) - 1);
    (group * group_blocks + block) * block_bytes + index * inode_bytes
}

fn number(file: &File, offset: u64, length: usize) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes[8 - length..], offset)
        .unwrap();
    u64::from_be_bytes(bytes)
}
