//! The system calls that no safe wrapper offers: byte-range locks that belong to an open
//! file, a child that dies with its parent, where a file lies, snapshots of subvolumes.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Takes a shared lock of one byte for as long as `file` is open.
/// Source: `fcntl_locking(2)`, open file description locks.
pub(crate) fn lock_byte(file: &File, byte: i64) -> io::Result<()> {
    let mut lock = one_byte(libc::F_RDLCK, byte);
    control(file, libc::F_OFD_SETLK, &mut lock)
}

/// Whether any other open file holds a lock of this byte.
pub(crate) fn is_byte_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = one_byte(libc::F_WRLCK, byte);
    control(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Frees every lock of `file`, whoever else has a copy of its descriptor.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    let mut all = one_byte(libc::F_UNLCK, 0);
    all.l_len = 0;
    control(file, libc::F_OFD_SETLK, &mut all)
}

fn one_byte(kind: i32, byte: i64) -> libc::flock {
    // SAFETY: `flock` is a plain C structure for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).expect("lock types are 0, 1 and 2");
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).expect("SEEK_SET is 0");
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

fn control(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is a
    // valid structure that the call only reads or fills.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has the kernel kill the child when the *thread* that starts it ends: start
/// it on one that lives as long as the child shall.
/// Source: `prctl(2)`, `PR_SET_PDEATHSIG`.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if rustix::process::getppid() == Some(parent) {
                return Ok(());
            }
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        });
    }
}

/// Where a part of a file lies on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MappedExtent {
    /// Where it starts in the file, in bytes.
    pub(crate) logical: u64,
    /// Where it starts on the device.
    pub(crate) physical: u64,
    /// How long it is, in bytes.
    pub(crate) length: u64,
    /// The bytes on the device are the file's: not compressed, inline or yet to be written.
    pub(crate) is_plain: bool,
}

impl MappedExtent {
    /// The first byte of the file behind it.
    pub(crate) const fn end(&self) -> u64 {
        self.logical + self.length
    }
}

/// Source: `linux/fiemap.h`, as all of the following.
#[repr(C)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; EXTENTS_A_CALL],
}

/// Extents that are asked for at a time.
const EXTENTS_A_CALL: usize = 512;
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
/// Writes what is in memory to the device before it answers.
const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_LAST: u32 = 1;
/// `FIEMAP_EXTENT_SHARED`, `_MERGED` and `_LAST`: all that a plain extent may be said to be.
const PLAIN_FLAGS: u32 = 0x2000 | 0x1000 | FIEMAP_EXTENT_LAST;

/// Where all of a file lies, in order; nothing if it has more extents than `limit`.
pub(crate) fn extents(file: &File, limit: usize) -> io::Result<Option<Vec<MappedExtent>>> {
    // SAFETY: `Fiemap` is a plain C structure of integers for which all zeros is a value.
    let mut map: Box<Fiemap> = Box::new(unsafe { std::mem::zeroed() });
    let mut found: Vec<MappedExtent> = Vec::new();
    loop {
        map.start = found.last().map_or(0, MappedExtent::end);
        map.length = u64::MAX - map.start;
        map.flags = FIEMAP_FLAG_SYNC;
        (map.mapped_extents, map.extent_count) = (0, EXTENTS_A_CALL as u32);
        // SAFETY: the descriptor is open while `file` is borrowed, and the kernel fills at
        // most the `extent_count` extents that the structure has.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *map) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        let mapped = &map.extents[..EXTENTS_A_CALL.min(map.mapped_extents as usize)];
        for extent in mapped {
            let behind = found.last().is_none_or(|last| last.end() <= extent.logical);
            let fits = extent.logical.checked_add(extent.length).is_some()
                && extent.physical.checked_add(extent.length).is_some();
            if !behind || !fits || extent.length == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if found.len() == limit {
                return Ok(None);
            }
            found.push(MappedExtent {
                logical: extent.logical,
                physical: extent.physical,
                length: extent.length,
                is_plain: extent.flags & !PLAIN_FLAGS == 0,
            });
        }
        let is_last = |extent: &FiemapExtent| extent.flags & FIEMAP_EXTENT_LAST != 0;
        if mapped.last().is_none_or(is_last) {
            return Ok(Some(found));
        }
    }
}

/// Source: `linux/btrfs.h`, as the following: `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct NewSubvolume {
    /// Of what it is a snapshot.
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Subvolume {
    fd: i64,
    name: [u8; 4088],
}

const BTRFS_IOC_SNAP_CREATE_V2: libc::Ioctl = 0x5000_9417_u32 as libc::Ioctl;
const BTRFS_IOC_SNAP_DESTROY: libc::Ioctl = 0x5000_940f_u32 as libc::Ioctl;
const BTRFS_SUBVOL_RDONLY: u64 = 2;
/// Bytes of a subvolume's name at most.
const SUBVOLUME_NAME_MAX: usize = 255;

/// Takes a read-only snapshot of a btrfs subvolume, by a name in its own folder.
pub(crate) fn snapshot_subvolume(subvolume: &OwnedFd, name: &CStr) -> io::Result<()> {
    let mut new = NewSubvolume {
        fd: subvolume.as_raw_fd().into(),
        transaction: 0,
        flags: BTRFS_SUBVOL_RDONLY,
        unused: [0; 4],
        name: [0; 4040],
    };
    put_name(&mut new.name, name)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel only reads the
    // structure, whose name ends in zeros.
    let done = unsafe {
        libc::ioctl(
            subvolume.as_raw_fd(),
            BTRFS_IOC_SNAP_CREATE_V2,
            &raw const new,
        )
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Removes a btrfs subvolume that is in a folder by this name.
pub(crate) fn remove_subvolume(folder: &OwnedFd, name: &CStr) -> io::Result<()> {
    let mut old = Subvolume {
        fd: 0,
        name: [0; 4088],
    };
    put_name(&mut old.name, name)?;
    // SAFETY: as above.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), BTRFS_IOC_SNAP_DESTROY, &raw const old) };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn put_name(place: &mut [u8], name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if name.len() > SUBVOLUME_NAME_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    place[..name.len()].copy_from_slice(name);
    Ok(())
}
