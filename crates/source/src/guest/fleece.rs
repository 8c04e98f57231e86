//! What is put into a guest's QEMU so that its disks can be read as they were
//! at one moment, and how it is taken out again.
//!
//! Above each disk comes a filter that copies what the guest is about to overwrite into a scratch
//! file; a view upon the filter reads the disk as it was when the filter came. If the copy fails,
//! or takes long, QEMU gives the view up and never lets the guest wait or fail.
//!
//! The filters of several disks come one after another. What a guest wrote between them is noted
//! in a bitmap of each filter, and one transaction begins a job for each disk that copies those
//! few blocks, as they are at that moment, into a file upon the view: so all of them are of the
//! moment of the transaction. QEMU's own atomic snapshots begin such a job for whole disks, and
//! when their scratch file fails, the guest's write does: here that could be in these few milliseconds only.
//!
//! Everything has a name that tells what it is and of which disk: whatever a
//! Cairn that was killed left behind is found by them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::attached::{self, Attached, Node};
use super::bitmaps::{self, Bitmaps};
use super::scratch;
use crate::qmp::{Qmp, QmpError};

/// Seconds that the guest may wait for the scratch file before the view is given up.
const COPY_SECONDS: u32 = 5;
/// What the descriptors of scratch files are called in QEMU.
const DESCRIPTOR: &str = "cairn";
/// Bytes of a disk that a bit of a filter's bitmap stands for: the unit in which it copies.
const WINDOW_BYTES: u32 = 65_536;

/// What a named thing of ours in QEMU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bitmap that marks the node beneath a filter. It notes nothing.
    Mark,
    /// The node of a scratch file.
    Scratch,
    /// The filter that copies what is about to be overwritten.
    Filter,
    /// A bitmap of the filter, of what was written since it came.
    Window,
    /// The disk as it was when the filter came.
    View,
    /// The disk as it was at the backup's moment; the job that makes it is called the same.
    Seam,
    /// The filter of that job.
    Job,
    /// A bitmap that is a copy of another at the backup's moment.
    Copy,
    /// An export.
    Export,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Mark,
        Self::Scratch,
        Self::Filter,
        Self::Window,
        Self::View,
        Self::Seam,
        Self::Job,
        Self::Copy,
        Self::Export,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Mark => "cairn-mark-",
            Self::Scratch => "cairn-scratch-",
            Self::Filter => "cairn-filter-",
            Self::Window => "cairn-window-",
            Self::View => "cairn-view-",
            Self::Seam => "cairn-seam-",
            Self::Job => "cairn-job-",
            Self::Copy => "cairn-copy-",
            Self::Export => "cairn-export-",
        }
    }

    /// The name of that of the disk with this number.
    pub(super) fn name(self, index: usize) -> String {
        format!("{}{index}", self.word())
    }

    /// What has this name, and the number of its disk; nothing of a name that is not ours.
    fn of(name: &str) -> Option<(Self, usize)> {
        Self::ALL.into_iter().find_map(|kind| {
            let rest = name.strip_prefix(kind.word())?;
            let index = rest.split('-').next()?.parse().ok()?;
            Some((kind, index))
        })
    }
}

/// Why a guest's disks could not be made readable.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleeceError {
    /// QEMU did not do what it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Somebody else has QEMU serve something.
    #[error("QEMU's NBD server is in use")]
    ServerTaken,
    /// A job that should have taken milliseconds failed.
    #[error("QEMU could not copy what was written at the backup's moment: {0}")]
    Seam(String),
    /// Something on this side failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, FleeceError>;

/// A disk that is being made readable.
#[derive(Debug)]
pub(super) struct Part {
    /// Its number among the disks of the backup.
    pub(super) index: usize,
    pub(super) disk: Attached,
    pub(super) bitmaps: std::result::Result<Bitmaps, cairn_types::disk::NoChangeMap>,
}

impl Part {
    /// The name of the node that is exported.
    fn top(&self, count: usize) -> String {
        match count {
            1 => Kind::View.name(self.index),
            _ => Kind::Seam.name(self.index),
        }
    }
}

/// Marks the nodes that filters will come upon.
pub(super) fn mark(qmp: &mut Qmp, parts: &[Part]) -> Result<()> {
    for Part { index, disk, .. } in parts {
        let mark = json!({"node": disk.root, "name": Kind::Mark.name(*index), "disabled": true});
        qmp.execute("block-dirty-bitmap-add", &mark)?;
    }
    Ok(())
}

/// Makes the filters ready.
pub(super) fn prepare(qmp: &mut Qmp, folder: &Path, parts: &[Part]) -> Result<()> {
    let limit = scratch::limit(folder, parts.len() as u64)?;
    for Part { index, disk, .. } in parts {
        let (scratch, filter) = (Kind::Scratch.name(*index), Kind::Filter.name(*index));
        let file = scratch::create(folder, disk.size_bytes, limit)?;
        add_image(qmp, &scratch, (file.as_fd(), limit), None)?;
        let add = json!({"driver": "copy-before-write", "node-name": filter, "file": disk.root,
            "target": scratch, "on-cbw-error": "break-snapshot", "cbw-timeout": COPY_SECONDS});
        qmp.execute("blockdev-add", &add)?;
        if parts.len() > 1 {
            let window = json!({"node": filter, "name": Kind::Window.name(*index),
                "granularity": WINDOW_BYTES});
            qmp.execute("block-dirty-bitmap-add", &window)?;
        }
    }
    Ok(())
}

/// Lets everything that is written from one moment on be kept: this is the
/// backup's moment, and all that is done while a guest is frozen.
pub(super) fn hold(qmp: &mut Qmp, folder: &Path, parts: &[Part]) -> Result<()> {
    for Part { index, disk, .. } in parts {
        set_root(qmp, &disk.device, &Kind::Filter.name(*index))?;
    }
    let mut actions: Vec<Value> = Vec::new();
    for part in parts {
        let Part { index, disk, .. } = part;
        let (filter, view) = (Kind::Filter.name(*index), Kind::View.name(*index));
        let add = json!({"driver": "snapshot-access", "node-name": view, "file": filter});
        qmp.execute("blockdev-add", &add)?;
        if let Ok(bitmaps) = &part.bitmaps {
            actions.extend(bitmaps.copies(*index));
        }
        if parts.len() > 1 {
            let limit = scratch::limit(folder, parts.len() as u64)?;
            let file = scratch::create(folder, disk.size_bytes, limit)?;
            let seam = Kind::Seam.name(*index);
            add_image(qmp, &seam, (file.as_fd(), limit), Some(&view))?;
            actions.push(json!({"type": "blockdev-backup", "data": {"job-id": seam,
                "device": filter, "target": seam, "sync": "bitmap",
                "bitmap": Kind::Window.name(*index), "bitmap-mode": "never",
                "auto-dismiss": false, "filter-node-name": Kind::Job.name(*index)}}));
        }
    }
    if !actions.is_empty() {
        qmp.execute("transaction", &json!({"actions": actions}))?;
    }
    Ok(())
}

/// Exports the disks as they were at the moment; returns the names, which
/// are those of the disks with the same numbers.
pub(super) fn export(qmp: &mut Qmp, parts: &[Part]) -> Result<()> {
    if parts.len() > 1 {
        finish_seams(qmp)?;
    }
    for part in parts {
        let name = Kind::Export.name(part.index);
        let copies = part.bitmaps.iter().flat_map(|bitmaps| {
            let copies = bitmaps.copy_names(part.index);
            copies.map(|copy| json!({"node": bitmaps.node, "name": copy}))
        });
        let export = json!({"type": "nbd", "id": name, "name": name,
            "node-name": part.top(parts.len()), "bitmaps": copies.collect::<Vec<_>>()});
        qmp.execute("block-export-add", &export)?;
    }
    Ok(())
}

/// Has QEMU serve NBD on a socket that was made here.
///
/// Errors: `ServerTaken` it serves somebody else already.
pub(super) fn start_server(qmp: &mut Qmp, listener: UnixListener) -> Result<()> {
    let name = json!({"fdname": DESCRIPTOR});
    qmp.execute_with("getfd", &name, Some(listener.as_fd()))?;
    let address = json!({"type": "fd", "data": {"str": DESCRIPTOR}});
    let start = json!({"addr": address, "max-connections": 0});
    match qmp.execute("nbd-server-start", &start) {
        Err(error) if error.is_answer() => {
            // What was handed over goes with the connection if this fails.
            let _ = qmp.execute("closefd", &name);
            match error.to_string().contains("already running") {
                true => Err(FleeceError::ServerTaken),
                false => Err(error.into()),
            }
        }
        started => Ok(started.map(drop)?),
    }
}

/// Adds the node of a qcow2 image that may become as large as its file is already.
fn add_image(
    qmp: &mut Qmp,
    name: &str,
    (file, limit): (BorrowedFd<'_>, u64),
    backing: Option<&str>,
) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Added {
        fdset_id: u64,
    }
    let opaque = json!({"opaque": DESCRIPTOR});
    let added = qmp.execute_with("add-fd", &opaque, Some(file))?;
    let read = serde_json::from_value(added);
    let Added { fdset_id } = read.map_err(|_| QmpError::Protocol("a descriptor has no number"))?;
    let path = format!("/dev/fdset/{fdset_id}");
    let mut node = json!({"driver": "qcow2", "node-name": name, "cache": {"no-flush": true},
        "file": {"driver": "raw", "size": limit,
            "file": {"driver": "file", "filename": path, "locking": "off"}}});
    if let Some(backing) = backing {
        node["backing"] = json!(backing);
    }
    qmp.execute("blockdev-add", &node)?;
    // The node has a copy of its own.
    qmp.execute("remove-fd", &json!({"fdset-id": fdset_id}))?;
    Ok(())
}

fn set_root(qmp: &mut Qmp, device: &str, node: &str) -> std::result::Result<(), QmpError> {
    let set = json!({"path": device, "property": "drive", "value": node});
    qmp.execute("qom-set", &set).map(drop)
}

/// A job of QEMU's.
#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    status: String,
    error: Option<String>,
}

impl Job {
    fn is_over(&self) -> bool {
        self.status == "concluded"
    }
}

fn jobs_of(which: Option<usize>) -> impl Fn(&Vec<Job>) -> Vec<&Job> {
    move |jobs| {
        let is_ours = |job: &&Job| is_of(&job.id, which);
        jobs.iter().filter(is_ours).collect()
    }
}

/// Whether something of this name is ours, and belongs to this disk or to any.
fn is_of(name: &str, which: Option<usize>) -> bool {
    Kind::of(name).is_some_and(|(_, index)| which.is_none_or(|which| which == index))
}

fn finish_seams(qmp: &mut Qmp) -> Result<()> {
    let ours = jobs_of(None);
    let jobs = qmp.wait_until("query-jobs", |jobs| {
        ours(jobs).iter().all(|job| job.is_over())
    })?;
    for job in ours(&jobs) {
        if let Some(error) = &job.error {
            return Err(FleeceError::Seam(error.clone()));
        }
        qmp.execute("job-dismiss", &json!({"id": job.id}))?;
    }
    Ok(())
}

/// Takes out of QEMU whatever belongs to one disk, or to any, but the bitmaps
/// that stay in images. Returns whether there was anything.
pub(super) fn clean_up(qmp: &mut Qmp, which: Option<usize>) -> std::result::Result<bool, QmpError> {
    let mut found = remove_exports(qmp, which)?;
    found |= remove_jobs(qmp, which)?;
    let nodes = attached::nodes(qmp)?;
    found |= nodes.iter().any(|node| is_of(&node.name, which));
    // Whatever reads a filter keeps the device from writing past it.
    delete(qmp, &nodes, which, &[Kind::Seam, Kind::View])?;
    for device in attached::devices(qmp)? {
        let (Some(qdev), Some(root)) = (device.qdev, device.inserted) else {
            continue;
        };
        if let Some((Kind::Filter, index)) = Kind::of(&root.name)
            && which.is_none_or(|which| which == index)
        {
            let mark = Kind::Mark.name(index);
            let has_mark = |node: &&Node| node.bitmaps.iter().any(|bitmap| bitmap.name == mark);
            let beneath = nodes.iter().find(has_mark);
            let beneath = beneath.ok_or(QmpError::Protocol("a filter of ours is upon nothing"))?;
            set_root(qmp, &qdev, &beneath.name)?;
        }
    }
    delete(qmp, &nodes, which, &[Kind::Filter, Kind::Scratch])?;
    for node in &nodes {
        for bitmap in &node.bitmaps {
            if let Some((Kind::Mark | Kind::Copy, _)) = Kind::of(&bitmap.name)
                && is_of(&bitmap.name, which)
            {
                found = true;
                bitmaps::remove(qmp, &node.name, &bitmap.name)?;
            }
        }
    }
    remove_descriptors(qmp)?;
    Ok(found)
}

/// Ends QEMU's NBD server, unless it serves somebody.
pub(super) fn stop_server(qmp: &mut Qmp) -> std::result::Result<(), QmpError> {
    let exports: Vec<Value> = qmp.ask("query-block-exports", &json!({}))?;
    if !exports.is_empty() {
        return Ok(());
    }
    match qmp.execute("nbd-server-stop", &json!({})) {
        // It was not running.
        Err(error) if error.is_answer() => Ok(()),
        stopped => stopped.map(drop),
    }
}

fn remove_exports(qmp: &mut Qmp, which: Option<usize>) -> std::result::Result<bool, QmpError> {
    #[derive(Deserialize)]
    struct Export {
        id: String,
    }
    let is_ours = |export: &&Export| is_of(&export.id, which);
    let exports: Vec<Export> = qmp.ask("query-block-exports", &json!({}))?;
    let ours: Vec<_> = exports.iter().filter(is_ours).collect();
    for export in &ours {
        let delete = json!({"id": export.id, "mode": "hard"});
        match qmp.execute("block-export-del", &delete) {
            // It is ending already.
            Err(error) if error.is_answer() => {}
            deleted => drop(deleted?),
        }
    }
    if !ours.is_empty() {
        qmp.wait_until("query-block-exports", |exports: &Vec<Export>| {
            !exports.iter().any(|export| is_ours(&export))
        })?;
    }
    Ok(!ours.is_empty())
}

fn remove_jobs(qmp: &mut Qmp, which: Option<usize>) -> std::result::Result<bool, QmpError> {
    let ours = jobs_of(which);
    let jobs: Vec<Job> = qmp.ask("query-jobs", &json!({}))?;
    let found = !ours(&jobs).is_empty();
    for job in ours(&jobs).into_iter().filter(|job| !job.is_over()) {
        match qmp.execute("job-cancel", &json!({"id": job.id})) {
            // It ended meanwhile.
            Err(error) if error.is_answer() => {}
            cancelled => drop(cancelled?),
        }
    }
    let jobs = qmp.wait_until("query-jobs", |jobs| {
        ours(jobs).iter().all(|job| job.is_over())
    })?;
    for job in ours(&jobs) {
        qmp.execute("job-dismiss", &json!({"id": job.id}))?;
    }
    Ok(found)
}

/// Deletes those of the nodes that are ours and of these kinds, in their order.
fn delete(
    qmp: &mut Qmp,
    nodes: &[Node],
    which: Option<usize>,
    kinds: &[Kind],
) -> std::result::Result<(), QmpError> {
    for kind in kinds {
        for node in nodes {
            let found = Kind::of(&node.name).filter(|(found, _)| found == kind);
            if found.is_some() && is_of(&node.name, which) {
                qmp.execute("blockdev-del", &json!({"node-name": node.name}))?;
            }
        }
    }
    Ok(())
}

/// Removes descriptors of scratch files that no node was made of.
fn remove_descriptors(qmp: &mut Qmp) -> std::result::Result<(), QmpError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Set {
        fdset_id: u64,
        #[serde(default)]
        fds: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        opaque: Option<String>,
    }
    let sets: Vec<Set> = qmp.ask("query-fdsets", &json!({}))?;
    for set in sets {
        let mut opaques = set.fds.iter().map(|file| file.opaque.as_deref());
        if opaques.any(|opaque| opaque == Some(DESCRIPTOR)) {
            match qmp.execute("remove-fd", &json!({"fdset-id": set.fdset_id})) {
                // It was gone by itself.
                Err(error) if error.is_answer() => {}
                removed => drop(removed?),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_they_are_and_others_are_left_alone() {
        for kind in Kind::ALL {
            let name = kind.name(12);
            assert!(name.len() <= 31, "QEMU cuts {name}");
            assert_eq!(Kind::of(&name), Some((kind, 12)));
            assert!(is_of(&name, None) && is_of(&name, Some(12)) && !is_of(&name, Some(1)));
        }
        assert_eq!(Kind::of("cairn-copy-3-1"), Some((Kind::Copy, 3)));
        for other in [
            "",
            "cairn",
            "cairn-view-",
            "cairn-view-x",
            "cairn-0000000001-ab",
            "view-1",
        ] {
            assert_eq!(Kind::of(other), None, "{other}");
        }
    }
}
