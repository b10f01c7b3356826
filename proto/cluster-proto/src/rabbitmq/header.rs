//! Message headers, by which a node drops what is not for it without decoding the body.

/// The format version of the body, an unsigned integer.
pub const VERSION: &str = "jf-version";
/// The sender's uid, a string: own echoes are dropped by it.
pub const SENDER: &str = "jf-sender";
/// The namespace, a string.
pub const NAMESPACE: &str = "jf-namespace";
/// The hashes of the rooms of a broadcast, a byte array as [`encode_room_hashes`] writes it.
/// Without it the message may concern any room.
pub const ROOM_HASHES: &str = "jf-rooms";
/// RabbitMQ's own: further routing keys, a list of strings. A queue that several keys lead to gets one copy.
pub const CC: &str = "CC";

/// Encodes room hashes, four bytes each, big endian.
#[must_use]
pub fn encode_room_hashes(hashes: &[u32]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect()
}

/// Decodes room hashes; `None` if the length is odd, and then the body has to tell.
#[must_use]
pub fn decode_room_hashes(bytes: &[u8]) -> Option<impl Iterator<Item = u32> + '_> {
    let (hashes, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| hashes.iter().map(|hash| u32::from_be_bytes(*hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_hashes_survive_the_header() {
        let bytes = encode_room_hashes(&[1, u32::MAX]);
        assert_eq!(bytes, [0, 0, 0, 1, 255, 255, 255, 255]);
        assert_eq!(decode_room_hashes(&bytes).map(Iterator::collect), Some(vec![1, u32::MAX]));
        assert!(decode_room_hashes(&[0; 5]).is_none());
    }
}
