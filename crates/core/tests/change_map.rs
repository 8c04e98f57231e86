//! Images whose sources tell what has changed, backed up as the service does it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cairn_repo::{MasterKey, Project, Repository, WriteDisk, Written};
use cairn_source::{ImagesConfig, Inventory, SourceConfig};
use cairn_testkit::{MemoryDisk, backup_info, noise};
use cairn_types::disk::NoChangeMap;
use cairn_types::{BackupId, Progress, ProjectId, ResourceId};
use object_store::memory::InMemory;

const MIB: u64 = 1 << 20;

/// A folder of images, and a project that their backups go to.
struct Lab {
    folder: PathBuf,
    project_id: ProjectId,
    project: Project,
    parent: Option<BackupId>,
}

impl Lab {
    async fn new(folder: &Path) -> Self {
        let master = MasterKey::from_hex(&"7".repeat(64)).unwrap();
        let repository = Repository::create(Arc::new(InMemory::new()), &master).await;
        let project_id = ProjectId::random();
        Self {
            folder: folder.to_owned(),
            project_id,
            project: repository.unwrap().project(project_id).await.unwrap(),
            parent: None,
        }
    }

    fn inventory(&self) -> Inventory {
        Inventory::new(vec![SourceConfig::Images(ImagesConfig {
            name: "lab".to_owned(),
            path: self.folder.clone(),
            project: None,
            reflinks: true,
            bitmaps: true,
            server: Vec::new(),
            tags: BTreeMap::new(),
        })])
        .unwrap()
    }

    /// The one image there is.
    fn volume(&self) -> ResourceId {
        self.inventory().list().unwrap()[0].id
    }

    fn job(&mut self) -> WriteDisk {
        let mut info = backup_info(self.project_id, 1);
        info.resource = self.volume();
        let parent = self.parent.replace(info.id);
        WriteDisk {
            info,
            parent,
            reader: self.inventory().open_reader(self.volume()).unwrap(),
            progress: Arc::new(Progress::default()),
            reread_all: false,
        }
    }

    async fn back_up(&mut self) -> Written {
        let job = self.job();
        self.project.write_disk(job).await.unwrap()
    }

    async fn restored(&self) -> Vec<u8> {
        let backup = self.parent.unwrap();
        let size = self.project.find(backup).await.unwrap().size_bytes;
        let target = Arc::new(MemoryDisk::new(size));
        let progress = Arc::new(Progress::default());
        let restored = self.project.restore_disk(backup, target.clone(), progress);
        restored.await.unwrap();
        target.bytes()
    }
}

fn make(path: &Path, size_bytes: u64) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.set_len(size_bytes).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_file_beside_an_image_tells_what_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(folder.path()).await;
    let path = folder.path().join("disk.img");
    let image = make(&path, 40 * MIB);
    let tell = |text: String| {
        let (new, path) = (
            folder.path().join("new"),
            folder.path().join("disk.img.changes"),
        );
        let file = File::create(&new).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        fs::rename(new, path).unwrap();
    };
    let head = |from: &str, to: &str| {
        format!("cairn-changes 1\nfrom {from}\nto {to}\nsize {}\n", 40 * MIB)
    };
    image.write_all_at(&noise(1, 20 * MIB as usize), 0).unwrap();
    tell(head("-", "one") + "end\n");
    let full = lab.back_up().await;
    assert!(full.by_change_map.is_err());

    image.write_all_at(&noise(2, 5000), 30 * MIB).unwrap();
    tell(head("one", "two") + &format!("{} 5000\nend\n", 30 * MIB));
    let changed = lab.back_up().await;
    assert_eq!(changed.by_change_map, Ok(()));
    assert!(changed.read_bytes <= 2 << 16, "{changed:?}");
    assert!(lab.restored().await == fs::read(&path).unwrap());

    // The same file again: it does not count from this backup.
    let unknown = lab.back_up().await;
    let why = "its change file does not count from the earlier backup";
    assert_eq!(unknown.by_change_map, Err(NoChangeMap(why.to_owned())));

    // The image is written to after its change file: nobody knows what that was.
    tell(head("two", "three") + "end\n");
    let later =
        fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(9);
    image.write_all_at(&noise(3, 5000), MIB).unwrap();
    image.set_modified(later).unwrap();
    let late = lab.back_up().await;
    let why = "the image was written to after its change file";
    assert_eq!(late.by_change_map, Err(NoChangeMap(why.to_owned())));
    assert!(lab.restored().await == fs::read(&path).unwrap());
}

/// A new file system on a file, mounted until it is dropped.
struct Mounted {
    at: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// Nothing, with the reason printed, where this machine cannot do it.
    fn new(kind: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (device, at) = (folder.path().join("device"), folder.path().join("at"));
        File::create(&device).unwrap().set_len(512 * MIB).unwrap();
        fs::create_dir(&at).unwrap();
        let mkfs = format!("mkfs.{kind}");
        let commands = [
            vec![mkfs.as_str(), "-q", device.to_str().unwrap()],
            vec![
                "mount",
                "-o",
                "loop",
                device.to_str().unwrap(),
                at.to_str().unwrap(),
            ],
        ];
        for command in commands {
            let done = Command::new(command[0]).args(&command[1..]).output();
            let why = match done {
                Err(error) => error.to_string(),
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            };
            println!("not tested: {} did not work: {why}", command[0]);
            return None;
        }
        Some(Self {
            at,
            _folder: folder,
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Threads that are ending may have files open for a moment yet.
        let done = Command::new("umount").arg("--lazy").arg(&self.at).status();
        assert!(done.unwrap().success());
    }
}

fn reflinks(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(".cairn-points")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn reflinks_tell_what_to_read(kind: &str) {
    let Some(mounted) = Mounted::new(kind) else {
        return;
    };
    let mut lab = Lab::new(&mounted.at).await;
    let path = mounted.at.join("disk.img");
    let image = make(&path, 64 * MIB);
    image.write_all_at(&noise(1, 20 * MIB as usize), 0).unwrap();
    lab.back_up().await;
    assert_eq!(reflinks(&mounted.at).len(), 1);

    let same = lab.back_up().await;
    assert_eq!(same.by_change_map, Ok(()), "{kind}");
    assert!(same.read_bytes <= 2 << 16, "{same:?}");

    // Over data, into a hole, a hole over data, and more at the end.
    image.write_all_at(&noise(2, 5000), 3 * MIB + 7).unwrap();
    image.write_all_at(&noise(3, 5000), 50 * MIB).unwrap();
    let punched = Command::new("fallocate")
        .args(["-p", "-o", "8388608", "-l", "1048576"])
        .arg(&path)
        .status();
    assert!(punched.unwrap().success());
    image.write_all_at(&noise(4, 100), 64 * MIB).unwrap();
    let changed = lab.back_up().await;
    assert_eq!(changed.by_change_map, Ok(()), "{kind}");
    assert!(changed.read_bytes < 2 * MIB, "{changed:?}");
    assert!(lab.restored().await == fs::read(&path).unwrap());
    assert_eq!(reflinks(&mounted.at).len(), 1);

    // Who writes while a backup reads does it no harm, and is seen by the next.
    let before = fs::read(&path).unwrap();
    let job = lab.job();
    image
        .write_all_at(&noise(5, 9 * MIB as usize), MIB)
        .unwrap();
    let during = lab.project.write_disk(job).await.unwrap();
    assert_eq!(during.by_change_map, Ok(()), "{kind}");
    assert!(lab.restored().await == before);
    let after = lab.back_up().await;
    assert_eq!(after.by_change_map, Ok(()), "{kind}");
    assert!(lab.restored().await == fs::read(&path).unwrap());

    // A backup that is given up leaves no reflink, one that was killed some.
    let kept = reflinks(&mounted.at);
    let parent = lab.parent;
    drop(lab.job());
    lab.parent = parent;
    assert_eq!(reflinks(&mounted.at), kept);
    let name = kept[0].file_name().unwrap().to_str().unwrap().to_owned();
    for number in ["0000000090", "0000000091", "0000000092", "0000000093"] {
        let mut parts: Vec<&str> = name.split('.').collect();
        parts[1] = number;
        fs::copy(&path, kept[0].with_file_name(parts.join("."))).unwrap();
    }
    image.write_all_at(&noise(6, 5000), 12 * MIB).unwrap();
    let next = lab.back_up().await;
    assert_eq!(next.by_change_map, Ok(()), "{kind}");
    assert!(next.read_bytes <= 3 << 16, "{next:?}");
    assert_eq!(reflinks(&mounted.at).len(), 1);

    // Without the reflink all is read.
    fs::remove_file(&reflinks(&mounted.at)[0]).unwrap();
    let lost = lab.back_up().await;
    let why = "the reflink of the earlier backup is gone";
    assert_eq!(lost.by_change_map, Err(NoChangeMap(why.to_owned())));
    assert!(lab.restored().await == fs::read(&path).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn reflinks_on_xfs_tell_what_to_read() {
    reflinks_tell_what_to_read("xfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflinks_on_btrfs_tell_what_to_read() {
    reflinks_tell_what_to_read("btrfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_nothing_is_left_beside_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(folder.path()).await;
    make(&folder.path().join("disk.img"), MIB);
    lab.back_up().await;
    let written = lab.back_up().await;
    if written.by_change_map.is_ok() {
        println!("not tested: temporary files are on a file system with reflinks");
        return;
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn qemu(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .expect("package qemu-utils is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A new image that is one file, open nowhere.
fn qcow2(folder: &Path, size: &str) -> PathBuf {
    let path = folder.join("disk.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args([path.as_os_str(), size.as_ref()])
        .status();
    assert!(made.unwrap().success());
    path
}

/// Writes as a guest would; with `sigraise 9` behind QEMU is killed after it.
fn write(path: &Path, commands: &[&str]) {
    let arguments = commands.iter().flat_map(|command| ["-c", command]);
    let output = Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .args(arguments)
        .arg(path)
        .output();
    let killed = commands.contains(&"sigraise 9");
    assert_eq!(output.unwrap().status.success(), !killed);
}

/// The names of an image's bitmaps that Cairn did not make, and how many it made.
fn bitmaps(path: &Path) -> (Vec<String>, usize) {
    let said = qemu("qemu-img", &["info", "--output=json"], path);
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    let bitmaps = info["format-specific"]["data"]["bitmaps"]
        .as_array()
        .cloned();
    let names = bitmaps.unwrap_or_default().into_iter();
    let names = names.map(|bitmap| bitmap["name"].as_str().unwrap().to_owned());
    let (ours, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("cairn-"));
    (others, ours.len())
}

fn content(path: &Path) -> Vec<u8> {
    let raw = path.with_extension("converted");
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .args([path, &raw])
        .status();
    assert!(converted.unwrap().success());
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(raw).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn bitmaps_of_qcow2_images_tell_what_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(folder.path()).await;
    let path = qcow2(folder.path(), "256M");
    let add = Command::new("qemu-img")
        .args(["bitmap", "--add", "-f", "qcow2"])
        .args([path.as_os_str(), "theirs".as_ref()])
        .status();
    assert!(add.unwrap().success());
    write(&path, &["write -P 1 0 20M"]);
    lab.back_up().await;
    assert_eq!(bitmaps(&path), (vec!["theirs".to_owned()], 1));

    let same = lab.back_up().await;
    assert_eq!(same.by_change_map, Ok(()));
    assert!(same.read_bytes <= 5 << 16, "{same:?}");

    write(
        &path,
        &[
            "write -P 2 3M 100k",
            "write -z 5M 64k",
            "write -P 3 255M 1M",
        ],
    );
    let changed = lab.back_up().await;
    assert_eq!(changed.by_change_map, Ok(()));
    assert!(changed.read_bytes < 2 * MIB, "{changed:?}");
    assert!(lab.restored().await == content(&path));
    assert_eq!(bitmaps(&path), (vec!["theirs".to_owned()], 1));

    // A restore is a change as well.
    let writer = lab.inventory().open_writer(lab.volume(), u64::MAX).unwrap();
    writer.write_at(9 * MIB, &noise(1, 5000)).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let after = lab.back_up().await;
    assert_eq!(after.by_change_map, Ok(()));
    assert!(lab.restored().await == content(&path));

    // A backup that is given up takes its bitmap away again.
    let parent = lab.parent;
    drop(lab.job());
    lab.parent = parent;
    assert_eq!(bitmaps(&path), (vec!["theirs".to_owned()], 1));
}

/// What virtnbdbackup's users met (issues 237, 258, 266 there): a chain of
/// bitmaps that broke, was believed all the same, or could not be gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn bitmaps_that_a_killed_qemu_left_are_not_believed_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(folder.path()).await;
    let path = qcow2(folder.path(), "64M");
    write(&path, &["write -P 1 0 20M"]);
    lab.back_up().await;

    // It is killed before it has saved what it noted.
    write(&path, &["write -P 2 3M 100k", "flush", "sigraise 9"]);
    let killed = lab.back_up().await;
    let why = "the bitmap of the earlier backup was not saved in full";
    let gone = "the bitmap of the earlier backup is gone";
    let reason = killed.by_change_map.unwrap_err();
    assert!([why, gone].contains(&reason.0.as_str()), "{reason}");
    assert!(lab.restored().await == content(&path));
    assert_eq!(bitmaps(&path).1, 1);

    write(&path, &["write -P 4 7M 100k"]);
    let next = lab.back_up().await;
    assert_eq!(next.by_change_map, Ok(()));
    assert!(lab.restored().await == content(&path));

    // Backups that were killed left theirs.
    for number in ["0000000090", "0000000091", "0000000092", "0000000093"] {
        let name = format!("cairn-{number}-abc");
        let add = Command::new("qemu-img")
            .args(["bitmap", "--add", "-f", "qcow2"])
            .args([path.as_os_str(), name.as_ref()])
            .status();
        assert!(add.unwrap().success());
    }
    write(&path, &["write -P 5 9M 100k"]);
    let next = lab.back_up().await;
    assert_eq!(next.by_change_map, Ok(()));
    assert!(lab.restored().await == content(&path));
    assert_eq!(bitmaps(&path).1, 1);

    // Somebody takes all bitmaps away.
    let clean = qcow2_copy_without_bitmaps(&path);
    fs::rename(clean, &path).unwrap();
    let lost = lab.back_up().await;
    assert_eq!(lost.by_change_map, Err(NoChangeMap(gone.to_owned())));
    assert!(lab.restored().await == content(&path));
}

fn qcow2_copy_without_bitmaps(path: &Path) -> PathBuf {
    let copy = path.with_extension("copy");
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "qcow2"])
        .args([path, &copy])
        .status();
    assert!(converted.unwrap().success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_snapshots_within_is_given_no_bitmap() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(folder.path()).await;
    let path = qcow2(folder.path(), "64M");
    write(&path, &["write -P 1 0 1M"]);
    lab.back_up().await;
    qemu("qemu-img", &["snapshot", "-c", "before"], &path);
    let written = lab.back_up().await;
    let why = "its image has a backing file or snapshots within";
    assert_eq!(written.by_change_map, Err(NoChangeMap(why.to_owned())));
    // The one from before stays until a backup has a better one.
    assert_eq!(bitmaps(&path), (Vec::new(), 1));
}
