//! Base64 as the protocol uses it: standard alphabet and padding out, anything in.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};

/// Takes well-formed text quickly, padded or not, whatever its unused last bits say.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes base64 the way the reference server's runtime does, which never fails.
///
/// Both the standard and the URL-safe alphabet are read, `=` ends the text, and any other byte is skipped; a
/// last digit that holds less than a byte is dropped. So garbage gives some bytes or none, and the
/// application judges them.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    Engine::decode(&TOLERANT, text).unwrap_or_else(|_| decode_skipping(text))
}

/// Appends the base64 of `bytes`, padded.
pub(crate) fn encode_into(bytes: &[u8], out: &mut String) {
    STANDARD.encode_string(bytes, out);
}

/// How many characters [`encode_into`] appends for `bytes` bytes.
pub(crate) fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

fn decode_skipping(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    // The low `held_bits` bits of `held` are read but not yet written.
    let mut held: u32 = 0;
    let mut held_bits: u32 = 0;
    for digit in text.bytes().take_while(|&byte| byte != b'=').filter_map(digit_value) {
        held = (held << 6 | u32::from(digit)) & 0xffff;
        held_bits += 6;
        if held_bits >= 8 {
            held_bits -= 8;
            let [_, _, _, byte] = (held >> held_bits).to_be_bytes();
            decoded.push(byte);
        }
    }
    decoded
}

fn digit_value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_well_formed_and_what_is_not() {
        for (text, expected) in [
            ("AQID", &[1, 2, 3][..]),
            ("AQI=", &[1, 2]),
            ("AQI", &[1, 2]),
            ("AQ==", &[1]),
            ("AQ=", &[1]),
            ("AQ", &[1]),
            ("A", &[]),
            ("", &[]),
            ("+/8=", &[0xfb, 0xff]),
            ("-_8", &[0xfb, 0xff]),
            ("A Q\nI*D", &[1, 2, 3]),
            ("AQ==AQID", &[1]),
            ("====", &[]),
            ("é€😀", &[]),
        ] {
            assert_eq!(decode(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_slow_path_agrees_with_the_quick_one() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let mut text = String::new();
            encode_into(&bytes[..len], &mut text);
            assert_eq!(text.len(), encoded_len(len));
            assert_eq!(decode(&text), &bytes[..len]);
            assert_eq!(decode_skipping(&text), &bytes[..len]);
        }
    }
}
