//! The two header values of the opening handshake that need more than string comparison.

use tungstenite::handshake::derive_accept_key;

/// Returns the `Sec-WebSocket-Accept` value that answers a `Sec-WebSocket-Key`: 28 base64 characters.
/// Spec: RFC 6455 section 4.2.2, item 5.4.
///
/// Any string gets an answer; ask [`is_valid_key`] first.
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Tells whether a `Sec-WebSocket-Key` is base64 of 16 bytes: 22 characters of the alphabet and `==`.
///
/// The last character carries four bits that belong to no byte. Like the Node server, this ignores their value.
pub fn is_valid_key(key: &str) -> bool {
    let Some((characters, b"==")) = key.as_bytes().split_last_chunk::<2>() else {
        return false;
    };
    characters.len() == 22
        && characters.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_base64_of_16_bytes_is_a_key() {
        let cases = [
            ("mupA9l2rXciZKoMNQ9LphA==", true),
            ("++++//////0123456789Aw==", true),
            ("mupA9l2rXciZKoMNQ9Lph/==", true),
            ("", false),
            ("==", false),
            ("mupA9l2rXciZKoMNQ9LphA=", false),
            ("mupA9l2rXciZKoMNQ9LphA= ", false),
            ("mupA9l2rXciZKoMNQ9Lph==", false),
            ("mupA9l2rXciZKoMNQ9LphAA==", false),
            ("mupA9l2rXciZKoMNQ9LphA==\n", false),
            ("mupA9l2rXciZKoMNQ9Lp-A==", false),
            ("mupA9l2rXciZKoMNQ9Lé==", false),
        ];
        for (key, expected) in cases {
            assert_eq!(is_valid_key(key), expected, "{key:?}");
        }
    }
}
