//! Transactions: what they are about comes in pieces, which lie in records, several transactions' in one.
//!
//! A transaction whose commit is missing did not happen.

use std::collections::HashMap;

use super::bad;
use crate::bytes::{be32, le16, le32};
use crate::error::{Error, Result};

/// How long the header of an operation is, and of a transaction.
const OPERATION_BYTES: usize = 12;
const HEADER_BYTES: usize = 16;
const MAGIC: u32 = 0x5452_414e;
/// Who an operation is from: a transaction, or the log itself.
const CLIENTS: [u8; 2] = [0x69, 0xaa];
/// Regions of an item at most: one for each second chunk of the largest buffer, and its description.
const REGIONS_MAX: usize = 257;
/// Bytes of transactions that have no commit yet; one has 64 MiB at most.
const PENDING_BYTES_MAX: usize = 128 << 20;
/// What a region takes beside its bytes.
const REGION_BYTES: usize = 32;

// Flags of an operation.
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUE: u8 = 0x04;
const WAS_CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;

/// One thing that a transaction changes.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// How many regions it says it has.
    count: usize,
    /// What it is about, and what is written there.
    pub(super) regions: Vec<Vec<u8>>,
}

impl Item {
    pub(super) fn kind(&self) -> u16 {
        le16(&self.regions[0], 0)
    }
}

#[derive(Debug)]
pub(super) struct Transaction {
    /// The number of the record that it begins in.
    pub(super) lsn: u64,
    pub(super) items: Vec<Item>,
    /// How much of its header has come.
    header_bytes: usize,
    /// How much memory it takes.
    bytes: usize,
}

impl Transaction {
    fn new(lsn: u64) -> Self {
        Self {
            lsn,
            items: Vec::new(),
            header_bytes: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.header_bytes < HEADER_BYTES {
            return self.add_header(bytes);
        }
        self.bytes += bytes.len() + REGION_BYTES;
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.count => item.regions.push(bytes.to_vec()),
            _ => {
                let count = bytes
                    .get(2..4)
                    .map_or(0, |count| usize::from(le16(count, 0)));
                if !(1..=REGIONS_MAX).contains(&count) {
                    return Err(bad("an item has a wrong number of regions"));
                }
                self.items.push(Item {
                    count,
                    regions: vec![bytes.to_vec()],
                });
            }
        }
        Ok(())
    }

    fn add_header(&mut self, bytes: &[u8]) -> Result<()> {
        let is_first = self.header_bytes == 0;
        if is_first && (bytes.len() < 4 || le32(bytes, 0) != MAGIC) {
            return Err(bad("a transaction does not begin like one"));
        }
        self.header_bytes += bytes.len();
        if self.header_bytes > HEADER_BYTES {
            return Err(bad("the header of a transaction is too long"));
        }
        Ok(())
    }

    /// Adds to the region that came last.
    fn carry_on(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(item) = self.items.last_mut() else {
            return self.add(bytes);
        };
        self.bytes += bytes.len();
        let region = item.regions.last_mut().expect("an item has a region");
        region.extend_from_slice(bytes);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.header_bytes == HEADER_BYTES
            && self
                .items
                .iter()
                .all(|item| item.regions.len() == item.count)
    }
}

/// Those that began and did not end.
#[derive(Default)]
pub(super) struct Open {
    transactions: HashMap<u32, Transaction>,
    bytes: usize,
}

impl Open {
    /// Takes what is in a record, and hands on what is committed by it.
    pub(super) fn record(
        &mut self,
        lsn: u64,
        operations: u32,
        body: &[u8],
        committed: &mut dyn FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        let mut rest = body;
        for _ in 0..operations {
            if rest.is_empty() {
                break;
            }
            let (header, behind) = rest
                .split_at_checked(OPERATION_BYTES)
                .ok_or_else(|| bad("an operation is longer than its record"))?;
            let (content, behind) = behind
                .split_at_checked(be32(header, 4) as usize)
                .ok_or_else(|| bad("an operation is longer than its record"))?;
            rest = behind;
            if !CLIENTS.contains(&header[8]) {
                return Err(bad("an operation is from nobody"));
            }
            if let Some(transaction) = self.operation(lsn, be32(header, 0), header[9], content)? {
                committed(transaction)?;
            }
        }
        Ok(())
    }

    fn operation(
        &mut self,
        lsn: u64,
        id: u32,
        flags: u8,
        content: &[u8],
    ) -> Result<Option<Transaction>> {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            // The end of one that began before the tail is of no interest.
            if flags & START != 0 {
                self.bytes += REGION_BYTES;
                let mut transaction = Transaction::new(lsn);
                transaction.bytes = REGION_BYTES;
                self.transactions.insert(id, transaction);
            }
            return self.check_size().map(|()| None);
        };
        let before = transaction.bytes;
        match flags & !END {
            0 | CONTINUE => transaction.add(content)?,
            flags if flags & !CONTINUE == WAS_CONTINUED => transaction.carry_on(content)?,
            COMMIT | UNMOUNT => {
                self.bytes -= before;
                let transaction = self.transactions.remove(&id);
                let transaction = transaction.filter(|_| flags & COMMIT != 0);
                if transaction.as_ref().is_some_and(|one| !one.is_whole()) {
                    return Err(bad("a transaction was committed before it was whole"));
                }
                return Ok(transaction);
            }
            _ => return Err(bad("an operation does what none does")),
        }
        self.bytes += transaction.bytes - before;
        self.check_size().map(|()| None)
    }

    fn check_size(&self) -> Result<()> {
        if self.bytes > PENDING_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "what transactions of the log hold at a time",
                limit: PENDING_BYTES_MAX as u64,
            });
        }
        Ok(())
    }
}
