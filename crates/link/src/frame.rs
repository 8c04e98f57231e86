//! Blocks on the line: compressed together, so that those that are alike cost little.

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::error::{Error, Result};

/// Plain bytes of a frame at most: 64 blocks.
pub(crate) const FRAME_BYTES: usize = 4 << 20;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// As the repository compresses what compresses well.
const LEVEL: i32 = 3;

/// Appends the bytes, compressed if that makes them smaller by a thirty-second at least.
pub(crate) fn compress(plain: &[u8], out: &mut Vec<u8>) {
    let mut compressor = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(FRAME_BYTES.ilog2()),
    ] {
        let set = compressor.set_parameter(parameter);
        set.expect("it is within the codec's bounds");
    }
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    match compressor.compress2(&mut packed, plain) {
        Ok(length) if length <= plain.len() - plain.len() / 32 => {
            out.push(ZSTD);
            out.extend_from_slice(&packed);
        }
        _ => {
            out.push(RAW);
            out.extend_from_slice(plain);
        }
    }
}

/// The plain bytes of a frame, which must be so many.
pub(crate) fn decompress(frame: &[u8], plain_bytes: usize) -> Result<Vec<u8>> {
    let (codec, packed) = frame
        .split_first()
        .ok_or(Error::Malformed("a frame is empty"))?;
    let mut plain = Vec::with_capacity(plain_bytes);
    match *codec {
        RAW => plain.extend_from_slice(packed),
        ZSTD => {
            // It never writes more than there is room for.
            let done = DCtx::create().decompress(&mut plain, packed);
            done.map_err(|_| Error::Malformed("a frame does not decompress"))?;
        }
        _ => return Err(Error::Malformed("a frame has an unknown codec")),
    }
    if plain.len() == plain_bytes {
        Ok(plain)
    } else {
        Err(Error::Malformed(
            "a frame has another length than it should",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let noise: Vec<u8> = (0..70_000_u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..2].to_vec())
            .collect();
        for plain in [vec![], vec![7; 500_000], noise] {
            let mut frame = Vec::new();
            compress(&plain, &mut frame);
            assert!(frame.len() <= plain.len() + 1);
            assert!(decompress(&frame, plain.len()).unwrap() == plain);
            assert!(decompress(&frame, plain.len() + 1).is_err());
            if !plain.is_empty() {
                assert!(decompress(&frame, plain.len() - 1).is_err());
            }
        }
        assert!(decompress(&[], 0).is_err());
        assert!(decompress(&[9, 1], 1).is_err());
    }
}
