//! The mark of losses: whether anything was lost in a project since a backup.
//!
//! A backup that takes over parts of an earlier one relies on chunks that it
//! does not look up. That they were all there is known of the time when
//! the earlier one was made. So its manifest keeps the project's mark of that time,
//! and whoever finds that chunks are gone that nobody took away changes the mark:
//! from then on nothing is taken over from backups that were made before. Where
//! frames are damaged, their chunks count as stored no more.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cairn_types::Kind;
use object_store::path::Path;

use crate::error::Result;
use crate::frame::FrameKey;
use crate::index::PackInfo;
use crate::known::Known;
use crate::marks::Bits;
use crate::project::Inner;
use crate::random;
use crate::store::losses_path;
use crate::whole;
use crate::workers;

/// Bytes of randomness in the object.
const RANDOM_BYTES: usize = 32;

/// What tells one state of the mark from another.
pub(crate) type LossMark = [u8; 16];

impl Inner {
    /// The mark as it is: made of the object's bytes, whatever they are, so
    /// that a damaged mark is a changed one. Zeros if nothing was ever lost.
    pub async fn loss_mark(&self) -> Result<LossMark> {
        let object = self.objects.get(&self.losses()).await?;
        Ok(object.map_or(LossMark::default(), |object| {
            let hash = blake3::hash(&object);
            *hash.as_bytes().first_chunk().expect("a hash is longer")
        }))
    }

    /// Changes the mark. To be durable before what tells of the loss is gone.
    pub async fn note_loss(&self) -> Result<()> {
        let mut object = random::bytes::<RANDOM_BYTES>().to_vec();
        whole::append_hash(&mut object);
        self.objects.put(&self.losses(), object).await
    }

    /// As `note_loss`. Who may only read leaves it to the next writer, who finds the same.
    pub async fn note_loss_if_writer(&self) -> Result<()> {
        match self.note_loss().await {
            Err(error) if error.kind() == Kind::Denied => Ok(()),
            noted => noted,
        }
    }

    /// Sees to it that the next backup which has the chunks of damaged frames
    /// stores them anew, until this process ends: repair does so for good. Whoever
    /// may only read changes nothing.
    pub async fn give_up_frames(
        &self,
        known: &Arc<Known>,
        bad: &Arc<HashSet<FrameKey>>,
    ) -> Result<()> {
        if self.log().is_err() {
            return Ok(());
        }
        let (known, bad) = (known.clone(), bad.clone());
        let is_news = workers::one(move || {
            let mut is_news = false;
            let packs: BTreeSet<u32> = bad.iter().map(|(pack, _)| *pack).collect();
            for number in packs {
                if let Some(pack) = known.index().pack(number)? {
                    let lost = chunks_of_bad_frames(number, &pack, &bad);
                    is_news |= known.set_damaged(number, lost);
                }
            }
            Ok(is_news)
        })
        .await?;
        match is_news {
            true => self.note_loss().await,
            false => Ok(()),
        }
    }

    fn losses(&self) -> Path {
        losses_path(self.place.project)
    }
}

/// The chunks of a pack's damaged frames.
pub(crate) fn chunks_of_bad_frames(number: u32, pack: &PackInfo, bad: &HashSet<FrameKey>) -> Bits {
    let mut lost = Bits::default();
    let frames = 0..pack.frames.len();
    for frame in frames.filter(|frame| bad.contains(&(number, *frame as u16))) {
        for chunk in pack.chunks_of(frame) {
            lost.set(chunk as u32);
        }
    }
    lost
}
