//! Parity: objects by which packs that are lost or damaged are made anew without
//! their source.
//!
//! Packs form groups, each with its own parity objects; as many of a group's
//! objects as it has of these may be lost at once. Groups are made after backups and
//! collections, beside everything else, and never on the way to an
//! acknowledgement. What is made anew takes a pack's place only if it has the
//! hash, the id and the sealed table of that pack, so nothing here need be
//! believed. Called by collection, by repair, and by whoever keeps the repository
//! up; each has the project's collecting to himself meanwhile.

mod code;
mod group;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cairn_types::Progress;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::check::WholeCheck;
use crate::error::Result;
use crate::index::IndexedPack;
use crate::known::Known;
use crate::objects::{or_corrupt, unreadable};
use crate::pack::PackId;
use crate::project::Inner;
use crate::random;
use crate::removal::Removal;
use crate::store::{Folder, Found, pack_path};
use crate::upload;
use crate::workers::{self, Stop, StopOnDrop};

use code::Coder;
use group::{Group, GroupId, HEADER_BYTES_MAX, Member, parse_name};
use plan::plan;

/// Packs in a group at most: a stripe of each is in memory at a time.
const DATA_MAX: usize = 32;
/// Parity objects of a group at most: parts of each are on their way to the store at a time.
const PARITY_MAX: usize = 4;

/// How packs are protected: of a group of `data` packs and `parity` parity
/// objects any `parity` may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parity {
    data: usize,
    parity: usize,
}

impl fmt::Display for Parity {
    /// As the configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, parity } = self;
        write!(f, "{{ data = {data}, parity = {parity} }}")
    }
}

impl Parity {
    /// Groups of up to `data` packs, 1 to 32, with `parity` parity objects, 1 to 4.
    pub fn new(data: usize, parity: usize) -> Option<Self> {
        let fits = (1..=DATA_MAX).contains(&data) && (1..=PARITY_MAX).contains(&parity);
        fits.then_some(Self { data, parity })
    }
}

/// What was done to have every pack protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protected {
    /// Groups that were made.
    pub groups_made: u64,
    /// Groups whose parity objects were removed.
    pub groups_removed: u64,
}

/// The groups that there are.
#[derive(Debug, Default)]
struct Groups {
    groups: Vec<Group>,
    /// Parity objects that belong to none of them.
    strange: Vec<Path>,
}

/// Whoever has the project's collecting to himself.
pub(crate) struct Keeper {
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
}

/// Has every pack protected, if the repository has a setting for it.
pub(crate) async fn protect(project: &Arc<Inner>, progress: Arc<Progress>) -> Result<Protected> {
    let _alone = project.turn_to_collect().await?;
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    project.check_log().await?;
    let keeper = Keeper::new(project, project.known().await?, &stop);
    let protected = keeper.protect(&BTreeSet::new()).await?;
    stop.complete();
    Ok(protected)
}

impl Keeper {
    pub fn new(project: &Arc<Inner>, known: Arc<Known>, stop: &Arc<Stop>) -> Self {
        let (project, stop) = (project.clone(), stop.clone());
        Self {
            project,
            known,
            stop,
        }
    }

    /// Has every pack that is known protected. `damaged` are paths of parity objects
    /// that are of no use. New groups are durable before old ones go, and a group
    /// with a pack that is not whole stays: it may be what that pack is made anew from.
    ///
    /// Errors: `Conflict` another process is the writer now; `Cancelled`.
    pub async fn protect(&self, damaged: &BTreeSet<Path>) -> Result<Protected> {
        let found = self.project.groups(damaged).await?;
        let mut done = Protected::default();
        if self.project.parity().is_none() && found.groups.is_empty() && found.strange.is_empty() {
            return Ok(done);
        }
        let known = self.known.clone();
        let packs = workers::one(move || {
            let index = known.index();
            let sizes = index.packs().into_iter().filter_map(|n| index.pack_size(n));
            Ok(sizes.collect::<BTreeMap<PackId, u64>>())
        })
        .await?;
        let plan = plan(&packs, found.groups.clone(), self.project.parity());
        let mut hurt = BTreeSet::new();
        for members in plan.make {
            hurt.extend(self.make(members).await?);
            done.groups_made += 1;
        }
        self.project.check_log().await?;
        for path in &found.strange {
            self.project.objects.delete(path).await?;
        }
        let dropped = found.groups.iter().filter(|group| {
            let is_hurt = |member: &Member| hurt.contains(&member.pack);
            plan.drop.contains(&group.id) && !group.members.iter().any(is_hurt)
        });
        for group in dropped {
            for number in 0..group.parity {
                let path = group.path(&self.project, number);
                self.project.objects.delete(&path).await?;
            }
            done.groups_removed += 1;
        }
        if done != Protected::default() {
            tracing::info!(
                project.id = %self.project.place.project,
                groups_made = done.groups_made,
                groups_removed = done.groups_removed,
                "Packs are protected by parity."
            );
        }
        Ok(done)
    }

    /// Makes a group of packs. Returns those of them that are not whole, and are left out.
    async fn make(&self, mut members: Vec<Member>) -> Result<Vec<PackId>> {
        let parity = self.project.parity();
        let parity = parity.map_or(0, |setting| setting.parity as u8);
        let mut hurt: Vec<PackId> = Vec::new();
        let bytes = members.iter().map(|member| member.bytes).sum();
        self.stop.progress().add_total(bytes);
        while !members.is_empty() {
            let group = Group::new(GroupId(random::bytes()), parity, members.clone());
            let coder = self.coder();
            let not_whole = workers::one(move || coder.protect(&group)).await?;
            if not_whole.is_empty() {
                break;
            }
            members.retain(|member| !not_whole.contains(&member.pack));
            hurt.extend(not_whole);
        }
        for pack in &hurt {
            tracing::error!(pack.id = %pack, "A pack is not whole and cannot be protected.");
        }
        Ok(hurt)
    }

    /// Makes packs anew that are gone though nobody removed them: which an index
    /// object names and the index does not have. To be called before anything
    /// is left out of the index objects.
    pub async fn heal_lost(&self, removal: &mut Removal) -> Result<Vec<PackId>> {
        let groups = self.project.groups(&BTreeSet::new()).await?.groups;
        let members = groups.iter().flat_map(|group| &group.members);
        let mut lost: BTreeSet<PackId> = members.map(|member| member.pack).collect();
        lost.retain(|pack| !self.known.has_pack(*pack));
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let named = removal.named_packs().await?;
        lost.retain(|pack| named.contains(pack));
        self.heal(lost).await
    }

    /// Makes packs anew that are lost or damaged, as far as their groups allow.
    /// Returns those, and others that were found hurt in the same groups.
    pub async fn heal(&self, hurt: BTreeSet<PackId>) -> Result<Vec<PackId>> {
        let mut healed: Vec<PackId> = Vec::new();
        if hurt.is_empty() {
            return Ok(healed);
        }
        for group in self.project.groups(&BTreeSet::new()).await?.groups {
            let is_wanted =
                |member: &Member| hurt.contains(&member.pack) && !healed.contains(&member.pack);
            if group.members.iter().any(is_wanted) {
                for pack in self.heal_group(group).await? {
                    healed.push(pack.id);
                    self.make_known(pack).await?;
                }
            }
        }
        Ok(healed)
    }

    async fn heal_group(&self, group: Group) -> Result<Vec<IndexedPack>> {
        let project = &self.project;
        let packs = group.members.iter().map(|member| Found {
            name: member.pack.to_string(),
            path: pack_path(project.place.project, member.pack),
            size_bytes: member.bytes,
        });
        let whole_packs = self.whole(packs.collect()).await?;
        let mut whole: BTreeSet<PackId> = group.members.iter().map(|m| m.pack).collect();
        whole.retain(|pack| whole_packs.contains(&pack_path(project.place.project, *pack)));
        let objects = group.found.iter().map(|number| Found {
            name: String::new(),
            path: group.path(project, *number),
            size_bytes: group.object_bytes(),
        });
        let whole_objects = self.whole(objects.collect()).await?;
        let mut parity = group.found.clone();
        parity.retain(|number| whole_objects.contains(&group.path(project, *number)));
        let lost = group.members.len() - whole.len();
        if lost == 0 || lost > parity.len() {
            if lost > 0 {
                tracing::error!(
                    group = %group.id,
                    lost,
                    parity = parity.len(),
                    "More packs of a group are lost than its parity can make anew."
                );
            }
            return Ok(Vec::new());
        }
        project.check_log().await?;
        let coder = self.coder();
        workers::one(move || coder.rebuild(&group, &whole, &parity)).await
    }

    /// Which of some objects are there as they were written.
    async fn whole(&self, objects: Vec<Found>) -> Result<BTreeSet<Path>> {
        let mut there = Vec::new();
        for found in objects {
            let size = or_corrupt(self.project.objects.size(&found.path).await)?;
            if size == Some(found.size_bytes) {
                there.push(found);
            }
        }
        let mut whole: BTreeSet<Path> = there.iter().map(|found| found.path.clone()).collect();
        let check = WholeCheck::new(self.project.objects.clone(), there, self.stop.clone());
        for damaged in check.run().await?.damaged {
            whole.remove(&Path::from(damaged));
        }
        Ok(whole)
    }

    async fn make_known(&self, pack: IndexedPack) -> Result<()> {
        tracing::warn!(pack.id = %pack.id, "A pack was made anew from parity.");
        if self.known.has_pack(pack.id) {
            return Ok(());
        }
        let known = self.known.clone();
        workers::one(move || {
            let session = known.start_session();
            let published = known.publish(session, &pack);
            known.release(session);
            published
        })
        .await
    }

    /// Parity objects that are not as they were written.
    pub async fn damaged_objects(&self) -> Result<BTreeSet<Path>> {
        let damaged = self.project.damaged_parity(&self.stop).await?;
        Ok(damaged.into_iter().map(Path::from).collect())
    }

    fn coder(&self) -> Coder {
        Coder {
            project: self.project.clone(),
            handle: Handle::current(),
            stop: self.stop.clone(),
            buffers: upload::buffers(),
        }
    }
}

impl Inner {
    /// Paths of parity objects that are lost while others of their groups are there.
    /// Where somebody is at work on groups, they are none: he sees to them.
    pub async fn lost_parity(&self) -> Result<Vec<String>> {
        if self.incomplete_groups().await?.is_empty() {
            return Ok(Vec::new());
        }
        let Some(_alone) = self.try_to_collect() else {
            return Ok(Vec::new());
        };
        let groups = self.incomplete_groups().await?;
        let lost = groups.iter().flat_map(|group| {
            let lost = (0..group.parity).filter(|number| !group.found.contains(number));
            lost.map(|number| group.path(self, number).to_string())
        });
        Ok(lost.collect())
    }

    async fn incomplete_groups(&self) -> Result<Vec<Group>> {
        let mut groups = self.groups(&BTreeSet::new()).await?.groups;
        groups.retain(|group| !group.is_complete());
        Ok(groups)
    }

    /// Every group, by its first parity object that can be read.
    async fn groups(&self, damaged: &BTreeSet<Path>) -> Result<Groups> {
        let listed = self.objects.list(self.place.project, Folder::Parity);
        let (mut groups, mut strange) = (BTreeMap::<GroupId, Group>::new(), Vec::new());
        for found in listed.await? {
            let Some((id, number)) = parse_name(&found.name) else {
                strange.push(found.path);
                continue;
            };
            let read = match groups.get(&id) {
                Some(_) => None,
                None => or_corrupt(self.read_group(id, number, &found).await)?,
            };
            if let Some(read) = read {
                groups.insert(id, read);
            }
            match groups.get_mut(&id) {
                Some(group) if number < group.parity && !damaged.contains(&found.path) => {
                    if found.size_bytes == group.object_bytes() {
                        group.found.insert(number);
                    }
                }
                Some(_) => {}
                None => strange.push(found.path),
            }
        }
        let groups = groups.into_values().collect();
        Ok(Groups { groups, strange })
    }

    async fn read_group(&self, id: GroupId, number: u8, found: &Found) -> Result<Group> {
        let end = found.size_bytes.min(HEADER_BYTES_MAX as u64);
        let bytes = self.objects.get_range(&found.path, 0..end).await?;
        Group::read(id, number, &bytes).map_err(|error| unreadable(found.path.to_string(), error))
    }

    /// Paths of parity objects that are not as they were written.
    pub async fn damaged_parity(&self, stop: &Arc<Stop>) -> Result<Vec<String>> {
        let listed = self
            .objects
            .list(self.place.project, Folder::Parity)
            .await?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let check = WholeCheck::new(self.objects.clone(), listed, stop.clone());
        Ok(check.run().await?.damaged)
    }
}
