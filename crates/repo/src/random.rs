//! Random bytes from the system; the only place that draws them.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Fresh random bytes, fit for keys and ids.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .expect("the system's random source does not fail once the machine is up");
    out
}
