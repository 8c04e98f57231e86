use cairn_types::ProjectId;

use super::*;
use crate::keys::RepositoryId;

#[test]
fn a_receipt_is_read_unchanged_and_in_its_place_only() {
    let key = [1; 32];
    let place = Place {
        repository: RepositoryId([2; 16]),
        project: ProjectId::random(),
    };
    let receipt = Receipt {
        backup: BackupId::random(),
        root: Root([3; 32]),
        size_bytes: 4096,
        manifest: [4; 32],
        created_at: Timestamp::from_micros(-5),
    };
    let object = receipt.sign(&key, &place);
    assert_eq!(Receipt::read(&key, &place, &object), Ok(receipt));
    assert!(Receipt::read(&[9; 32], &place, &object).is_err());
    let elsewhere = Place {
        project: ProjectId::random(),
        ..place
    };
    assert!(Receipt::read(&key, &elsewhere, &object).is_err());
    for at in 0..object.len() {
        let mut changed = object.clone();
        changed[at] ^= 1;
        assert!(Receipt::read(&key, &place, &changed).is_err(), "byte {at}");
        assert!(
            Receipt::read(&key, &place, &object[..at]).is_err(),
            "cut at {at}"
        );
    }
}
