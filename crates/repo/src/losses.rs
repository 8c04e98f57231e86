//! The mark of losses: whether anything was lost in a project since a backup.
//!
//! A backup that takes over parts of an earlier one relies on chunks that it
//! does not look up. That they were all there is known of the time when
//! the earlier one was made. So its manifest keeps the project's mark of that time,
//! and whoever finds that chunks are gone that nobody took away changes the mark:
//! from then on nothing is taken over from backups that were made before.

use cairn_types::Kind;
use object_store::path::Path;

use crate::error::Result;
use crate::project::Inner;
use crate::random;
use crate::store::losses_path;
use crate::whole;

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

    fn losses(&self) -> Path {
        losses_path(self.place.project)
    }
}
