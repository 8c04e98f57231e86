//! The two system calls that no safe wrapper offers: byte-range locks that
//! belong to an open file, and a child that dies with its parent.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
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
