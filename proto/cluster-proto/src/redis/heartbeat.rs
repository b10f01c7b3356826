//! Heartbeats as JSON: `{"v":1,"node":"AQID","incarnation":"…","seq":7,"role":"edge","status":"serving","interval_ms":2000,
//! "peer":"10.0.0.7:7000","solicits":true}`.
//!
//! `incarnation` is a string of 16 hexadecimal digits, because not every JSON reader has 64-bit integers. Unknown keys are ignored.

use std::fmt::Write;

use socketio_proto::json;

use crate::error::DecodeError;
use crate::heartbeat::{Heartbeat, NodeStatus, Role};
use crate::identity::NodeId;

/// The version that is written. A reader also accepts the one before.
pub const VERSION: u64 = 1;

/// Bytes of a heartbeat that are still read.
const BYTES_MAX: usize = 4096;
const PEER_BYTES_MAX: usize = 256;

/// Encodes a heartbeat, also as the value of a node's claim.
#[must_use]
pub fn encode(heartbeat: &Heartbeat) -> Vec<u8> {
    let Heartbeat { node, incarnation, sequence, role, status, interval_ms, peer_address, solicits } =
        heartbeat;
    let (role, status) = (role.as_str(), status.as_str());
    let mut text = format!(
        r#"{{"v":{VERSION},"node":"{node}","incarnation":"{incarnation:016x}","seq":{sequence},"role":"{role}","status":"{status}","interval_ms":{interval_ms}"#
    );
    if let Some(peer) = peer_address {
        // Writing to a `String` cannot fail.
        let _ = write!(text, r#","peer":"#);
        json::quote(peer, &mut text);
    }
    if *solicits {
        text.push_str(r#","solicits":true"#);
    }
    text.push('}');
    text.into_bytes()
}

/// Decodes a heartbeat.
///
/// # Errors
/// [`DecodeError`] if it is none that this version reads.
pub fn decode(bytes: &[u8]) -> Result<Heartbeat, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max: BYTES_MAX });
    }
    let text = str::from_utf8(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    json::validate(text, 8)?;
    let number = |key| json::member(text, key)?.parse::<u64>().ok();
    let string = |key| json::unquote(json::member(text, key)?);
    let missing = |field| DecodeError::InvalidField { field };

    let version = number("v").ok_or(missing("v"))?;
    if !(1..=VERSION).contains(&version) || version + 1 < VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let incarnation = string("incarnation").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    Ok(Heartbeat {
        node: string("node").and_then(|node| NodeId::parse(&node)).ok_or(missing("node"))?,
        incarnation: incarnation.ok_or(missing("incarnation"))?,
        sequence: number("seq").ok_or(missing("seq"))?,
        role: string("role").and_then(|role| Role::parse(&role)).ok_or(missing("role"))?,
        status: string("status").and_then(|status| NodeStatus::parse(&status)).ok_or(missing("status"))?,
        interval_ms: number("interval_ms").ok_or(missing("interval_ms"))?,
        peer_address: string("peer").filter(|peer| peer.len() <= PEER_BYTES_MAX).map(Into::into),
        solicits: json::member(text, "solicits") == Some("true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            node: NodeId::from_bytes([1, 2, 3]),
            incarnation: u64::MAX,
            sequence: 7,
            role: Role::Edge,
            status: NodeStatus::Serving,
            interval_ms: 2000,
            peer_address: Some("10.0.0.7:7000".to_owned()),
            solicits: true,
        }
    }

    #[test]
    fn a_heartbeat_survives_the_wire() {
        let text = r#"{"v":1,"node":"AQID","incarnation":"ffffffffffffffff","seq":7,"role":"edge","status":"serving","interval_ms":2000,"peer":"10.0.0.7:7000","solicits":true}"#;
        assert_eq!(encode(&heartbeat()), text.as_bytes());
        assert_eq!(decode(text.as_bytes()), Ok(heartbeat()));
        let gone = Heartbeat {
            role: Role::Emitter,
            status: NodeStatus::Gone,
            peer_address: None,
            solicits: false,
            ..heartbeat()
        };
        assert_eq!(decode(&encode(&gone)), Ok(gone));
    }

    #[test]
    fn unknown_keys_are_ignored_and_faults_named() {
        let text = String::from_utf8(encode(&heartbeat())).unwrap();
        let check = |from: &str, to: &str, expected: Result<Heartbeat, DecodeError>| {
            assert_eq!(decode(text.replace(from, to).as_bytes()), expected, "{to}");
        };
        check(r#""seq""#, r#""new":{"a":[1]},"seq""#, Ok(heartbeat()));
        check(r#""v":1"#, r#""v":2"#, Err(DecodeError::UnknownVersion { version: 2 }));
        check(r#""v":1"#, r#""v":0"#, Err(DecodeError::UnknownVersion { version: 0 }));
        check("AQID", "AQI", Err(DecodeError::InvalidField { field: "node" }));
        check("edge", "ledge", Err(DecodeError::InvalidField { field: "role" }));
        assert!(decode(b"").is_err());
        assert!(decode(&[0xff]).is_err());
        assert!(decode(&[b' '; 4097]).is_err());
    }
}
