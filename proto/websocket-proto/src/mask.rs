//! The masking of client payloads. Spec: RFC 6455 section 5.3.

/// Removes the mask from `payload`, whose first byte meets the first byte of `mask`.
///
/// Eight bytes at a time; the compiler turns the loop into vector instructions.
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Returns the mask as it stands after `consumed` bytes of payload: what the next byte meets comes first.
pub(crate) fn advanced(mut mask: [u8; 4], consumed: usize) -> [u8; 4] {
    mask.rotate_left(consumed % 4);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x01, 0x20, 0x83, 0xff];

    fn one_by_one(payload: &[u8]) -> Vec<u8> {
        payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    #[test]
    fn any_length_is_unmasked_like_byte_by_byte() {
        let payload: Vec<u8> = (0..=70).collect();
        for length in 0..payload.len() {
            let mut bytes = payload[..length].to_vec();
            unmask(&mut bytes, MASK);
            assert_eq!(bytes, one_by_one(&payload[..length]), "length {length}");
        }
    }

    #[test]
    fn any_cut_is_unmasked_like_the_whole() {
        let payload: Vec<u8> = (0..=40).collect();
        for cut in 0..payload.len() {
            let mut bytes = payload.clone();
            let (first, second) = bytes.split_at_mut(cut);
            unmask(first, MASK);
            unmask(second, advanced(MASK, cut));
            assert_eq!(bytes, one_by_one(&payload), "cut at {cut}");
        }
    }
}
