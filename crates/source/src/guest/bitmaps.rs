//! The dirty bitmaps of a running guest's images: the same as those of images
//! at rest (`change_map/bitmap.rs`), by the same rules, so that a backup may count from one that
//! was made while the guest was off, and the other way round.
//!
//! None is ever stopped: until the backup is acknowledged the one of the backup before goes on
//! noting, so nothing has to be put right when it is not. What it held at the backup's moment is
//! copied, and the copy is read.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use cairn_types::disk::{Extent, NoChangeMap, Point};
use serde_json::{Value, json};

use super::attached::{Attached, BitmapInfo};
use super::fleece::Kind;
use crate::change_map::bitmap::{
    GONE, GRANULARITY_BYTES, LAYERED, Plan, UNRELIABLE, name_in, point_of,
};
use crate::change_map::tail::{self, Shape};
use crate::qmp::{Qmp, QmpError};

/// The bitmaps of a disk that is being backed up.
#[derive(Debug)]
pub(super) struct Bitmaps {
    /// The node that they belong to.
    pub(super) node: String,
    cluster_bytes: u64,
    /// The one that was added.
    pub(super) added: String,
    /// The reliable ones from before, the oldest first, with their granularity.
    pub(super) older: Vec<(String, u32)>,
    /// Those that are there, and why they cannot be used.
    useless: HashMap<String, &'static str>,
    /// What the older ones held at the backup's moment.
    changes: HashMap<String, Result<Vec<Range<u64>>, NoChangeMap>>,
}

impl BitmapInfo {
    fn is_reliable(&self) -> bool {
        self.persistent && self.recording && !self.inconsistent
    }
}

impl Bitmaps {
    /// Adds a bitmap to a disk's image. It may hold what was written just before the
    /// backup's moment too: that does no harm.
    ///
    /// Errors: why there is none.
    pub(super) fn add(qmp: &mut Qmp, disk: &Attached) -> Result<Self, NoChangeMap> {
        let no = |why: &str| NoChangeMap(why.to_owned());
        let image = disk.qcow2.as_ref();
        let image = image.ok_or_else(|| no("its image is not one of qcow2, which has bitmaps"))?;
        if image.is_layered() {
            return Err(no(LAYERED));
        }
        let cluster_bytes = image.cluster_bytes();
        let cluster_bytes =
            cluster_bytes.ok_or_else(|| no("QEMU tells no size of its clusters"))?;
        let found = image.bitmaps.iter();
        let busy = found.clone().filter(|bitmap| bitmap.busy);
        let busy = busy.map(|bitmap| (bitmap.name.clone(), "its bitmap is in use by a job"));
        let lost = found.clone().filter(|bitmap| !bitmap.is_reliable());
        let lost = lost.map(|bitmap| (bitmap.name.clone(), UNRELIABLE));
        let useless: HashMap<_, _> = busy.chain(lost).collect();
        let plan = Plan::of(
            found
                .clone()
                .map(|bitmap| (bitmap.is_reliable(), bitmap.name.clone())),
        );
        for name in &plan.remove {
            remove(qmp, &image.name, name).map_err(failed)?;
        }
        let add = json!({"node": image.name, "name": plan.name, "persistent": true,
            "granularity": GRANULARITY_BYTES});
        qmp.execute("block-dirty-bitmap-add", &add)
            .map_err(failed)?;
        let granularity = |name: &String| {
            let bitmap = found.clone().find(|bitmap| bitmap.name == *name);
            bitmap.map(|bitmap| bitmap.granularity)
        };
        let older = plan.older.into_iter();
        let older = older.filter(|name| !useless.contains_key(name));
        let older = older.filter_map(|name| Some((granularity(&name)?, name)));
        Ok(Self {
            node: image.name.clone(),
            cluster_bytes,
            added: plan.name,
            older: older
                .map(|(granularity, name)| (name, granularity))
                .collect(),
            useless,
            changes: HashMap::new(),
        })
    }

    /// What of a transaction copies the older bitmaps.
    pub(super) fn copies(&self, index: usize) -> Vec<Value> {
        let mut actions = Vec::with_capacity(2 * self.older.len());
        for (number, (name, granularity)) in self.older.iter().enumerate() {
            let copy = copy_name(index, number);
            actions.push(
                json!({"type": "block-dirty-bitmap-add", "data": {"node": self.node,
                "name": copy, "disabled": true, "granularity": granularity}}),
            );
            actions.push(
                json!({"type": "block-dirty-bitmap-merge", "data": {"node": self.node,
                "target": copy, "bitmaps": [name]}}),
            );
        }
        actions
    }

    /// Takes what each of the older bitmaps held, as the copies with these names tell.
    pub(super) fn set_changes(
        &mut self,
        index: usize,
        read: impl Fn(&str) -> Result<Vec<Range<u64>>, NoChangeMap>,
    ) {
        let older = self.older.iter().enumerate();
        let read = older.map(|(number, (name, _))| (name.clone(), read(&copy_name(index, number))));
        self.changes = read.collect();
    }

    /// The names of the copies.
    pub(super) fn copy_names(&self, index: usize) -> impl Iterator<Item = String> {
        (0..self.older.len()).map(move |number| copy_name(index, number))
    }

    pub(super) fn point(&self) -> Point {
        point_of(&self.added)
    }

    /// As [`DiskReader::changes_since`](cairn_types::disk::DiskReader::changes_since), of a disk
    /// of this size whose runs `extent_at` tells.
    pub(super) fn changes_since(
        &self,
        earlier: &Point,
        size_bytes: u64,
        extent_at: impl Fn(u64) -> io::Result<Extent>,
    ) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let name = name_in(earlier)?;
        if let Some(why) = self.useless.get(name) {
            return Err(NoChangeMap((*why).to_owned()));
        }
        let changes = self.changes.get(name);
        let changes = changes.ok_or_else(|| NoChangeMap(GONE.to_owned()))?;
        let mut changes = changes.clone()?;
        let shape = Shape {
            size_bytes,
            cluster_bytes: self.cluster_bytes,
        };
        let added = tail::add(&mut changes, shape, extent_at);
        added.map_err(|error| NoChangeMap(error.to_string()))?;
        Ok(changes)
    }

    /// Lets the added bitmap stay and the older ones go, or the other way round.
    pub(super) fn settle(&self, qmp: &mut Qmp, kept: bool) -> Result<(), QmpError> {
        let older = self.older.iter().map(|(name, _)| name);
        let gone: Vec<&String> = match kept {
            true => older.collect(),
            false => vec![&self.added],
        };
        let removed = gone.into_iter().map(|name| remove(qmp, &self.node, name));
        let results: Vec<_> = removed.collect();
        results.into_iter().collect()
    }
}

fn copy_name(index: usize, number: usize) -> String {
    format!("{}-{number}", Kind::Copy.name(index))
}

/// Removes a bitmap of a node.
pub(super) fn remove(qmp: &mut Qmp, node: &str, name: &str) -> Result<(), QmpError> {
    let which = json!({"node": node, "name": name});
    qmp.execute("block-dirty-bitmap-remove", &which).map(drop)
}

fn failed(error: QmpError) -> NoChangeMap {
    NoChangeMap(format!("QEMU gave its image no dirty bitmap: {error}"))
}
