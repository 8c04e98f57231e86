//! What the golden repository of format 1 holds.

/// Its master key.
pub const MASTER: &str = include_str!("master.key");

/// Bytes of a block.
const BLOCK: usize = 65_536;

/// The first state of the disk: text, a hole of more than a node, a little that
/// does not compress, zeros, and a short last block.
pub fn first() -> Vec<u8> {
    let mut disk = vec![0; 600 * BLOCK + 1000];
    let line = b"the quick brown fox jumps over the lazy dog\n";
    for (at, byte) in disk[..3 * BLOCK + 77].iter_mut().enumerate() {
        *byte = line[at % line.len()];
    }
    let mut state = 1u32;
    for byte in &mut disk[520 * BLOCK..520 * BLOCK + 3000] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    disk[600 * BLOCK + 990..].copy_from_slice(b"0123456789");
    disk
}

/// The second state: one block changed, one made zero.
pub fn second() -> Vec<u8> {
    let mut disk = first();
    disk[BLOCK + 5..BLOCK + 12].copy_from_slice(b"changed");
    disk[520 * BLOCK..521 * BLOCK].fill(0);
    disk
}
