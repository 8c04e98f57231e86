//! A full or failing disk under the local index: a clear error, nothing lost.

use cairn_types::Kind;
use rustix::io::Errno;

use super::*;

/// Fills an index so that it flushes and merges; returns the packs that were taken.
fn fill(index: &Index) -> (Vec<u64>, Vec<Error>) {
    let (mut taken, mut errors) = (Vec::new(), Vec::new());
    for n in 0..6 {
        match index.insert(&pack(n, &chunks(n))) {
            Ok(()) => taken.push(n),
            Err(error) => errors.push(error),
        }
        if let Err(error) = index.flush() {
            errors.push(error);
        }
        // What is merged in the background fails there.
        index.merger.join();
    }
    (taken, errors)
}

fn chunks(pack: u64) -> Vec<u64> {
    (pack * 400..pack * 400 + 400).collect()
}

fn check(index: &Index, taken: &[u64]) {
    for n in taken {
        let number = index.number(pack_id(*n)).unwrap();
        let keys: Vec<ChunkKey> = chunks(*n).into_iter().map(key).collect();
        let places = (0..).map(|chunk| Place {
            pack: number,
            chunk,
        });
        let right: Vec<_> = places.take(keys.len()).map(Some).collect();
        assert_eq!(index.get_many(&keys).unwrap(), right, "pack {n}");
        assert_eq!(index.pack(number).unwrap().unwrap().chunks, 400);
    }
}

/// Has each call fail once, in an index of its own each.
fn sweep(
    errno: Errno,
    writes_only: bool,
    mut after: impl FnMut(&Lab, Index, &[u64], &[Error]),
) -> u64 {
    for call in 0.. {
        let lab = Lab::new();
        let index = lab.open();
        let faults = &index.shared.files.faults;
        faults.arm(call, errno, writes_only);
        let (taken, errors) = fill(&index);
        if faults.disarm() {
            assert!(errors.is_empty(), "{errors:?}");
            return call;
        }
        after(&lab, index, &taken, &errors);
    }
    unreachable!("the calls end before the numbers do")
}

#[test]
fn a_full_disk_at_any_write_is_an_error_and_loses_nothing() {
    let calls = sweep(Errno::NOSPC, true, |lab, index, taken, errors| {
        let kinds: Vec<Kind> = errors.iter().map(Error::kind).collect();
        assert!(
            kinds.iter().all(|kind| *kind == Kind::Exhausted),
            "{errors:?}"
        );
        check(&index, taken);
        index.flush().unwrap();
        index.merger.join();
        drop(index);
        check(&lab.open(), taken);
    });
    assert!(calls > 100, "{calls}");
}

#[test]
fn a_failing_disk_at_any_call_is_an_error_and_nothing_wrong_is_believed() {
    let calls = sweep(Errno::IO, false, |lab, index, taken, errors| {
        assert!(
            errors.iter().all(|e| e.kind() == Kind::Transient),
            "{errors:?}"
        );
        let unsound = index.is_unsound();
        if !unsound {
            check(&index, taken);
        }
        drop(index);
        let index = lab.open();
        // It is whole or empty; whatever it lacks is read from the store.
        let there = index
            .packs()
            .into_iter()
            .map(|n| index.pack_size(n).unwrap().0);
        let whole: Vec<u64> = there
            .map(|id| u64::from_le_bytes(*id.0.first_chunk().unwrap()))
            .collect();
        assert!(
            whole.is_empty() || !unsound,
            "an unsound index is made anew"
        );
        check(&index, &whole);
    });
    assert!(calls > 100, "{calls}");
}
