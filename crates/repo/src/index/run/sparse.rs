//! Runs of a size that no test could fill: all but some of their pages are
//! holes in the file.

use std::os::unix::fs::FileExt;

use super::*;
use crate::index::files::Files;

/// Writes a run whose entries are told by their numbers, in their order, with or without a filter.
/// `is_real` says by the first entries of a page and the next whether it is written.
pub(in crate::index) fn write(
    files: &Files,
    bound: &[u8; 32],
    id: RunId,
    (entries, filtered): (u64, bool),
    entry: impl Fn(u64) -> Entry,
    is_real: impl Fn(&Entry, &Entry) -> bool,
) -> Result<()> {
    let file = files.create(&file_name(&id))?;
    let put = |bytes: &[u8], at| file.write_all_at(bytes, at).expect("the disk has room");
    let mut fences = Vec::new();
    let mut filter = if filtered {
        Filter::for_keys(entries)
    } else {
        None
    };
    let pages = entries.div_ceil(PAGE_ENTRIES as u64);
    for page in 0..pages {
        let numbers = page * PAGE_ENTRIES as u64..entries.min((page + 1) * PAGE_ENTRIES as u64);
        let first = entry(numbers.start);
        fences.extend_from_slice(&fence_of(&first.key).to_le_bytes());
        if let Some(filter) = &mut filter {
            numbers.clone().for_each(|n| filter.insert(&entry(n).key));
        }
        if !is_real(&first, &entry(numbers.end.min(entries - 1))) {
            continue;
        }
        let mut bytes = vec![0; PAGE_BYTES - PAGE_HASH_BYTES];
        for (number, out) in numbers.zip(bytes.chunks_mut(ENTRY_BYTES)) {
            entry(number).write(out);
        }
        let hash = page_hash(&id, page, &bytes);
        bytes.extend_from_slice(&hash);
        put(&bytes, page * PAGE_BYTES as u64);
    }
    let filter = filter.as_ref().map_or(&[][..], Filter::as_bytes);
    let fences_at = pages * PAGE_BYTES as u64;
    let filter_at = fences_at + fences.len() as u64;
    put(&fences, fences_at);
    put(filter, filter_at);
    let footer = Footer {
        bound: *bound,
        id,
        entries,
        filter_bytes: filter.len() as u64,
        fences: blake3::hash(&fences).into(),
        filter: blake3::hash(filter).into(),
    };
    put(&footer.encode(), filter_at + filter.len() as u64);
    Ok(())
}
