//! The hash of a room: CRC-32 as in zlib (reflected polynomial `0xedb88320`), over the namespace, a zero byte, and the room.
//!
//! It is part of the format: publishers and bindings of different versions must agree on the bucket of a room.

use socketio_proto::namespace::NamespacePath;

const POLYNOMIAL: u32 = 0xedb8_8320;

/// Hashes a room of a namespace.
#[must_use]
pub fn room(namespace: &NamespacePath, room: &str) -> u32 {
    let bytes = namespace.as_str().bytes().chain([0]).chain(room.bytes());
    crc32(bytes)
}

/// Hashes a namespace alone.
pub(super) fn namespace(namespace: &NamespacePath) -> u32 {
    crc32(namespace.as_str().bytes())
}

fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |mut crc, byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = crc >> 1 ^ (POLYNOMIAL & 0_u32.wrapping_sub(carry));
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_usual_crc32() {
        assert_eq!(crc32(b"123456789".iter().copied()), 0xcbf4_3926);
        assert_eq!(crc32(std::iter::empty()), 0);
        assert_eq!(crc32(b"/\0room".iter().copied()), room(&NamespacePath::root(), "room"));
    }

    #[test]
    fn the_border_between_namespace_and_room_counts() {
        let hash = |path: &str, name| room(&NamespacePath::parse(path).unwrap(), name);
        assert_ne!(hash("/a", "b"), hash("/ab", ""));
        assert_ne!(hash("/a", "b"), hash("/b", "a"));
    }
}
