//! A socket as other nodes see it.
//!
//! The handshake has the members that the reference shows, but for what is nobody's business: only allow-listed
//! headers, no `auth`, and no session id in the query.

use cluster_proto::response::RemoteSocket;
use engineio_proto::urlencoded::parameters;
use serde_json::{Map, Value, json};

use super::app::{ClientState, SocketIo};
use super::socket::name;
use crate::rooms::index::SocketKey;
use crate::session::app::Handshake;
use crate::session::registry::Sessions;

/// Query parameters that are not shown: whoever knows a session id may use the session, and tokens travel here too.
const HIDDEN: [&str; 4] = ["sid", "token", "access_token", "auth"];

impl SocketIo {
    /// What is told of a socket to whoever asks for a list.
    pub(super) fn describe(&self, sessions: &Sessions<ClientState>, key: SocketKey) -> Option<RemoteSocket> {
        let socket = self.sockets.get(key)?;
        let id = name(socket, &self.namespaces);
        let rooms = std::iter::once(id.clone()).chain(self.rooms.names(key).map(str::to_owned)).collect();
        let handshake = sessions.get(socket.session)?.state().map(|state| handshake(&state.handshake));
        let profile = socket.profile.as_deref();
        Some(RemoteSocket {
            id,
            rooms,
            handshake,
            data: profile.and_then(|profile| profile.data.clone()),
            user: profile.and_then(|profile| profile.user.clone()),
        })
    }
}

fn handshake(handshake: &Handshake) -> String {
    let Handshake { time, address, secure, url, headers, .. } = handshake;
    let issued = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    let headers: Map<String, Value> =
        headers.iter().map(|(name, value)| (name.to_string(), json!(&**value))).collect();
    let (path, query) = url.split_once('?').unwrap_or((&**url, ""));
    let is_shown = |name: &str| !HIDDEN.contains(&name);
    let pieces = query.split('&').filter(|piece| is_shown(piece.split('=').next().unwrap_or_default()));
    let url = format!("{path}?{}", pieces.collect::<Vec<_>>().join("&"));
    let query = parameters(query).filter(|(name, _)| is_shown(name));
    let query: Map<String, Value> = query.map(|(name, value)| (name.into_owned(), json!(value))).collect();
    json!({
        "headers": headers,
        "time": httpdate::fmt_http_date(*time),
        "address": address.to_string(),
        "xdomain": false,
        "secure": secure,
        "issued": u64::try_from(issued).unwrap_or(u64::MAX),
        "url": url,
        "query": query,
        "auth": {},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use engineio_proto::ProtocolVersion;

    use super::*;

    #[test]
    fn the_handshake_has_the_members_of_the_reference_and_no_secret() {
        let shown = handshake(&Handshake {
            version: ProtocolVersion::V4,
            time: UNIX_EPOCH + Duration::from_millis(1_500),
            address: [10, 0, 0, 7].into(),
            secure: true,
            url: "/socket.io/?EIO=4&transport=polling&sid=SECRET&token=SECRET&lang=a%20b".into(),
            url_cut: false,
            headers: Box::new([("user-agent".into(), "x".into())]),
        });
        assert!(!shown.contains("SECRET"), "{shown}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let expected = json!({
            "headers": {"user-agent": "x"},
            "time": "Thu, 01 Jan 1970 00:00:01 GMT",
            "address": "10.0.0.7",
            "xdomain": false,
            "secure": true,
            "issued": 1500,
            "url": "/socket.io/?EIO=4&transport=polling&lang=a%20b",
            "query": {"EIO": "4", "transport": "polling", "lang": "a b"},
            "auth": {},
        });
        assert_eq!(shown, expected);
    }
}
