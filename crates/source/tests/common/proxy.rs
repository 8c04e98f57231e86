//! A proxy between Cairn and the monitor of a QEMU, which ends at a chosen
//! command as if one of them had been killed. It hands on descriptors too.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

pub struct CutProxy {
    path: PathBuf,
    state: Arc<State>,
    thread: JoinHandle<()>,
}

struct State {
    /// Commands that are still handed on.
    left: AtomicUsize,
    ended: AtomicBool,
}

impl CutProxy {
    /// Listens at `path` and hands on `commands - 1` commands to `qemu`.
    pub fn start(path: &Path, qemu: &Path, commands: usize) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(State {
            left: AtomicUsize::new(commands),
            ended: AtomicBool::new(false),
        });
        let (shared, own, qemu) = (Arc::clone(&state), path.to_owned(), qemu.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                hand_on(&stream.unwrap(), &qemu, &shared).unwrap();
                if shared.left.load(Ordering::SeqCst) == 0 {
                    // From now on nobody listens.
                    std::fs::remove_file(&own).unwrap();
                    break;
                }
            }
        });
        Self {
            path: path.to_owned(),
            state,
            thread,
        }
    }

    /// Ends it, and tells whether it was at the chosen command.
    pub fn end(self) -> bool {
        self.state.ended.store(true, Ordering::SeqCst);
        if let Ok(stream) = UnixStream::connect(&self.path) {
            drop(stream);
        }
        self.thread.join().unwrap();
        let _ = std::fs::remove_file(&self.path);
        self.state.left.load(Ordering::SeqCst) == 0
    }
}

/// Hands on what both say until one closes, or the chosen command comes.
fn hand_on(cairn: &UnixStream, qemu: &Path, state: &State) -> io::Result<()> {
    let qemu = UnixStream::connect(qemu)?;
    let (mut answers, mut to) = (qemu.try_clone()?, cairn.try_clone()?);
    let back = std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = answers.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(cairn, &mut into, &mut control, flags);
        let Ok(count @ 1..) = received.map(|received| received.bytes) else {
            break;
        };
        let files: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        // Cairn waits for the answer to each, so that each comes alone.
        let commands = buffer[..count]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let left = state.left.load(Ordering::SeqCst).saturating_sub(commands);
        state.left.store(left, Ordering::SeqCst);
        if left == 0 {
            break;
        }
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let text = [IoSlice::new(&buffer[..count])];
        let sent = rustix::net::sendmsg(&qemu, &text, &mut control, SendFlags::NOSIGNAL)?;
        assert_eq!(sent, count);
    }
    let _ = qemu.shutdown(Shutdown::Both);
    let _ = cairn.shutdown(Shutdown::Both);
    back.join().unwrap();
    Ok(())
}
