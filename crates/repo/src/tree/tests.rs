use proptest::prelude::*;

use super::*;

fn hasher() -> Hasher {
    Hasher::new(&[1; 32])
}

fn id(n: u64) -> ChunkId {
    let mut id = ChunkId::ZERO;
    id.0[..8].copy_from_slice(&n.to_le_bytes());
    id
}

fn no_base(_: u8, _: ChunkId) -> Result<[ChunkId; FANOUT], ()> {
    Err(())
}

proptest! {
    #[test]
    fn a_node_reads_back(slots in prop::collection::btree_map(0..FANOUT, 1u64.., 1..40), level in 1..7u8) {
        let mut children = [ChunkId::ZERO; FANOUT];
        for (slot, n) in slots {
            children[slot] = id(n);
        }
        let encoded = encode_node(level, &children).unwrap();
        prop_assert_eq!(decode_node(level, &encoded), Ok(children));
        prop_assert!(decode_node(level + 1, &encoded).is_err());
        prop_assert!(decode_node(level, &encoded[..encoded.len() - 1]).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_node(1, &bytes);
    }
}

#[test]
fn a_node_has_one_encoding_only() {
    assert_eq!(encode_node(1, &[ChunkId::ZERO; FANOUT]), None);
    let mut empty = vec![1];
    empty.extend_from_slice(&[0; FANOUT / 8]);
    assert!(decode_node(1, &empty).is_err());
    let mut zero_in_full = empty.clone();
    zero_in_full[1] = 1;
    zero_in_full.extend_from_slice(&[0; 32]);
    assert!(decode_node(1, &zero_in_full).is_err());
}

#[test]
fn the_height_is_the_least_that_covers_the_disk() {
    let height = |blocks: u64| Geometry::new(blocks * BLOCK_BYTES as u64).height();
    assert_eq!(
        [height(0), height(1), height(256), height(257)],
        [1, 1, 1, 2]
    );
    assert_eq!(
        [height(1 << 16), height((1 << 16) + 1), height(1 << 28)],
        [2, 3, 4]
    );
    assert_eq!(Geometry::new(u64::MAX).height(), 6);
}

#[test]
fn a_sparse_tree_has_only_the_nodes_above_its_data() {
    let geometry = Geometry::new(16 << 40);
    let mut tree = TreeBuilder::default();
    for leaf in [0, 1, 255, 256, 1 << 19] {
        tree.set_leaf(leaf, id(leaf + 1));
    }
    tree.set_leaf(7, ChunkId::ZERO);
    let mut nodes = Vec::new();
    let top = tree
        .build(geometry, &hasher(), no_base, |id, encoded| {
            nodes.push((encoded[0], id));
            Ok::<_, ()>(())
        })
        .unwrap();
    let levels: Vec<u8> = nodes.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [2, 2, 3, 2, 3, 4]);
    assert_eq!(nodes.last().unwrap().1, top);
}

#[test]
fn the_root_tells_sizes_of_zeros_apart() {
    let root = |size| Geometry::new(size).root(&hasher(), ChunkId::ZERO);
    assert_ne!(root(0), root(1));
    assert_ne!(root(1), root(2));
    assert_eq!(root(5), root(5));
}
