//! The msgpack parser on the same port as the default one: a session's first message decides.

use serde_json::{Value, json};

use crate::wire::{Server, WebSocket};

/// Encodes what the official msgpack parser would: smallest forms, maps in the order given.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Number(number) => match number.as_i64() {
            Some(small @ 0..=127) => out.push(u8::try_from(small).expect("seven bits")),
            Some(small @ -32..=-1) => out.extend(i8::try_from(small).expect("eight bits").to_be_bytes()),
            Some(wide) => {
                out.push(0xd3);
                out.extend(wide.to_be_bytes());
            }
            None => {
                out.push(0xcb);
                out.extend(number.as_f64().expect("a number").to_be_bytes());
            }
        },
        Value::String(text) => {
            let length = u8::try_from(text.len()).expect("a short text");
            match length {
                0..=31 => out.push(0xa0 | length),
                _ => out.extend([0xd9, length]),
            }
            out.extend(text.bytes());
        }
        Value::Array(items) => {
            out.push(0x90 | u8::try_from(items.len()).expect("a short array"));
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Object(fields) => {
            out.push(0x80 | u8::try_from(fields.len()).expect("a small map"));
            for (key, value) in fields {
                encode(&Value::from(key.as_str()), out);
                encode(value, out);
            }
        }
    }
}

/// Decodes what the server sends; bin becomes `{"bin":[bytes]}`.
pub(crate) fn decode(input: &mut &[u8]) -> Value {
    let mut take = |count: usize| {
        let (head, rest) = input.split_at(count);
        *input = rest;
        head
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = |bytes: &[u8]| usize::try_from(number(bytes)).expect("a length");
    let text = |bytes: &[u8]| Value::from(std::str::from_utf8(bytes).expect("UTF-8"));
    match take(1)[0] {
        small @ 0..=0x7f => Value::from(small),
        negative @ 0xe0.. => Value::from(i8::from_be_bytes([negative])),
        map @ 0x80..=0x8f => decode_map(usize::from(map & 0x0f), input),
        array @ 0x90..=0x9f => (0..array & 0x0f).map(|_| decode(input)).collect(),
        short @ 0xa0..=0xbf => text(take(usize::from(short & 0x1f))),
        0xc0 => Value::Null,
        0xc2 => Value::from(false),
        0xc3 => Value::from(true),
        wide @ 0xc4..=0xc6 => {
            let length = length(take(1 << (wide - 0xc4)));
            json!({ "bin": take(length) })
        }
        0xcb => Value::from(f64::from_bits(number(take(8)))),
        wide @ 0xcc..=0xcf => Value::from(number(take(1 << (wide - 0xcc)))),
        0xd0 => Value::from(i8::from_be_bytes([take(1)[0]])),
        0xd1 => Value::from(i16::from_be_bytes(take(2).try_into().expect("two bytes"))),
        0xd2 => Value::from(i32::from_be_bytes(take(4).try_into().expect("four bytes"))),
        0xd3 => Value::from(i64::from_be_bytes(take(8).try_into().expect("eight bytes"))),
        // Undefined, as the reference server writes it.
        0xd4 => {
            assert_eq!(take(2), [0, 0]);
            Value::Null
        }
        wide @ 0xd9..=0xdb => {
            let length = length(take(1 << (wide - 0xd9)));
            text(take(length))
        }
        0xdc => {
            let length = length(take(2));
            (0..length).map(|_| decode(input)).collect()
        }
        0xde => {
            let length = length(take(2));
            decode_map(length, input)
        }
        other => panic!("byte {other:#x} is not expected here"),
    }
}

fn decode_map(length: usize, input: &mut &[u8]) -> Value {
    let fields = (0..length).map(|_| {
        let key = decode(input).as_str().expect("a key").to_owned();
        (key, decode(input))
    });
    Value::Object(fields.collect())
}

async fn send(socket: &mut WebSocket, packet: &Value) {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes);
    socket.send_binary(&bytes).await;
}

/// The next packet; msgpack sessions get one binary frame for each.
async fn receive(socket: &mut WebSocket) -> Value {
    let bytes = socket.binary().await;
    let mut rest = bytes.as_slice();
    let packet = decode(&mut rest);
    assert_eq!(rest, b"", "one packet per message");
    packet
}

/// A msgpack session that has joined `/` and read the demo's first event; with its socket id.
async fn socket(server: &Server) -> (WebSocket, String) {
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    send(&mut socket, &json!({"type": 0, "nsp": "/", "data": {"token": "abc"}})).await;
    let reply = receive(&mut socket).await;
    assert_eq!((&reply["type"], &reply["nsp"]), (&json!(0), &json!("/")), "{reply}");
    let sid = reply["data"]["sid"].as_str().expect("a sid").to_owned();
    let auth = receive(&mut socket).await;
    assert_eq!(auth, json!({"type": 2, "nsp": "/", "data": ["auth", {"token": "abc"}]}));
    (socket, sid)
}

/// A session in which a raw message ends the connection.
async fn check_closes(server: &Server, what: &str, message: &[u8]) {
    let (mut socket, _) = socket(server).await;
    socket.send_binary(message).await;
    assert_eq!(socket.closed().await, None, "{what}");
}

#[tokio::test]
async fn connect_reply_is_a_map_of_type_data_and_namespace() {
    let server = Server::socketio(&[]);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send_binary(b"\x82\xa4type\x00\xa3nsp\xa1/").await;
    let mut bytes = &socket.binary().await[..];
    let reply = decode(&mut bytes);
    let mut keys: Vec<_> = reply.as_object().expect("a map").keys().cloned().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["data", "nsp", "type"]);
    assert_eq!(receive(&mut socket).await["data"], json!(["auth", {}]));
}

#[tokio::test]
async fn events_and_acknowledgements_make_the_round_trip() {
    let server = Server::socketio(&[]);
    let (mut socket, sid) = socket(&server).await;
    let args = json!(["é😀", 1, -1, 1.5, 1_234_567_890_123_i64, null, true, {"a": [{}]}]);
    let mut data = vec![json!("echo")];
    data.extend(args.as_array().expect("a list").clone());
    send(&mut socket, &json!({"type": 2, "nsp": "/", "data": data, "id": 7})).await;
    assert_eq!(receive(&mut socket).await, json!({"type": 3, "nsp": "/", "data": args, "id": 7}));
    send(&mut socket, &json!({"type": 2, "nsp": "/", "data": ["whoami"], "id": 0})).await;
    assert_eq!(receive(&mut socket).await, json!({"type": 3, "nsp": "/", "data": [sid], "id": 0}));
}

#[tokio::test]
async fn server_asks_and_gets_its_acknowledgement() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    send(&mut socket, &json!({"type": 2, "nsp": "/", "data": ["emit-with-ack", "x"]})).await;
    let event = receive(&mut socket).await;
    assert_eq!(event["data"], json!(["emit-with-ack", "x"]));
    send(&mut socket, &json!({"type": 3, "nsp": "/", "data": ["yes"], "id": event["id"]})).await;
    assert_eq!(receive(&mut socket).await["data"], json!(["emit-with-ack", "yes"]));
}

#[tokio::test]
async fn binary_travels_inside_the_packet() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    socket.send_binary(b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa7message\x81\xa1a\xc4\x02\x01\xff").await;
    let event = receive(&mut socket).await;
    assert_eq!(event["data"], json!(["message-back", {"a": {"bin": [1, 255]}}]));
}

#[tokio::test]
async fn binaries_obey_the_attachment_limit() {
    // A broadcast of more would end the clients of the default parser, whose decoders have the same limit.
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    let message = |count: u8| {
        let head = b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data";
        let binaries = (0..count).flat_map(|index| [0xc4, 1, index]);
        head.iter().copied().chain([0x91 + count]).chain(*b"\xa7message").chain(binaries).collect::<Vec<_>>()
    };
    socket.send_binary(&message(10)).await;
    assert_eq!(receive(&mut socket).await["data"].as_array().expect("a list").len(), 11);
    socket.send_binary(&message(11)).await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn undefined_and_dates_are_understood() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    let message = b"\x84\xa4type\x02\xa3nsp\xa1/\xa4data\x93\xa7message\xd4\x00\x00\xd7\x00\0\0\0\0\0\0\x05\xdc\xa2id\xd4\x00\x00";
    socket.send_binary(message).await;
    assert_eq!(receive(&mut socket).await["data"], json!(["message-back", null, "1970-01-01T00:00:01.500Z"]));
}

#[tokio::test]
async fn options_of_the_packet_are_ignored() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    let packet = json!({"type": 2, "options": {"compress": true}, "nsp": "/", "data": ["message", 1]});
    send(&mut socket, &packet).await;
    assert_eq!(receive(&mut socket).await["data"], json!(["message-back", 1]));
}

#[tokio::test]
async fn namespaces_and_refusals() {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    let (mut socket, _) = socket(&server).await;
    send(&mut socket, &json!({"type": 0, "nsp": "/custom"})).await;
    assert_eq!(receive(&mut socket).await["nsp"], "/custom");
    assert_eq!(receive(&mut socket).await, json!({"type": 2, "nsp": "/custom", "data": ["auth", {}]}));
    send(&mut socket, &json!({"type": 0, "nsp": "/nope"})).await;
    let refusal = receive(&mut socket).await;
    assert_eq!(refusal, json!({"type": 4, "nsp": "/nope", "data": {"message": "Invalid namespace"}}));
    send(&mut socket, &json!({"type": 2, "nsp": "/custom", "data": ["kick"]})).await;
    let kicked = receive(&mut socket).await;
    assert_eq!((&kicked["type"], &kicked["nsp"]), (&json!(1), &json!("/custom")));
    send(&mut socket, &json!({"type": 1, "nsp": "/"})).await;
    send(&mut socket, &json!({"type": 0, "nsp": "/"})).await;
    assert_eq!(receive(&mut socket).await["type"], 0);
}

#[tokio::test]
async fn works_over_polling_in_base64() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let mut connect = Vec::new();
    encode(&json!({"type": 0, "nsp": "/"}), &mut connect);
    session.send(&[&format!("b{}", STANDARD.encode(connect))]).await;
    let packets = session.packets_until(2).await;
    let packets: Vec<Value> = packets
        .iter()
        .map(|packet| {
            decode(&mut &STANDARD.decode(packet.strip_prefix('b').expect("binary")).expect("base64")[..])
        })
        .collect();
    assert_eq!(packets[0]["type"], 0);
    assert_eq!(packets[1]["data"], json!(["auth", {}]));
}

#[tokio::test]
async fn both_parsers_meet_in_one_room() {
    let server = Server::socketio(&[]);
    let (mut packed, _) = socket(&server).await;
    let (mut plain, _) = server.socket().await;
    let (mut old, _) = {
        let mut old = server.websocket("EIO=3").await;
        old.open_packet().await;
        assert_eq!(old.any_text().await, "40");
        assert_eq!(old.any_text().await, r#"42["auth",{}]"#);
        (old, ())
    };
    send(&mut packed, &json!({"type": 2, "nsp": "/", "data": ["broadcast", null, {"n": [1, "é"]}]})).await;
    assert_eq!(receive(&mut packed).await["data"], json!(["msg", {"n": [1, "é"]}]));
    plain.expect(&[r#"42["msg",{"n":[1,"é"]}]"#]).await;
    assert_eq!(old.any_text().await, r#"42["msg",{"n":[1,"é"]}]"#);

    plain.send(r#"451-["broadcast",null,{"_placeholder":true,"num":0}]"#).await;
    plain.send_binary(&[1, 2]).await;
    assert_eq!(receive(&mut packed).await["data"], json!(["msg", {"bin": [1, 2]}]));
    plain.expect(&[r#"451-["msg",{"_placeholder":true,"num":0}]"#]).await;
    assert_eq!(plain.binary().await, [1, 2]);
    assert_eq!(old.any_text().await, r#"451-["msg",{"_placeholder":true,"num":0}]"#);
    assert_eq!(old.binary().await, [4, 1, 2]);
}

#[tokio::test]
async fn a_session_keeps_its_parser() {
    let server = Server::socketio(&[]);
    let (mut packed, _) = socket(&server).await;
    packed.send(r#"42["message",1]"#).await;
    assert_eq!(packed.closed().await, None, "text in a msgpack session");
    let (mut plain, _) = server.socket().await;
    plain.send_binary(b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa7message").await;
    assert_eq!(plain.closed().await, None, "binary in a default session");
}

#[tokio::test]
async fn invalid_packets_close() {
    let server = Server::socketio(&[]);
    check_closes(&server, "an unknown type", b"\x83\xa4type\x07\xa3nsp\xa1/\xa4data\x91\xa1x").await;
    check_closes(&server, "a binary type", b"\x83\xa4type\x05\xa3nsp\xa1/\xa4data\x91\xa1x").await;
    check_closes(&server, "a type in text", b"\x83\xa4type\xa12\xa3nsp\xa1/\xa4data\x91\xa1x").await;
    check_closes(&server, "no namespace", b"\x82\xa4type\x02\xa4data\x91\xa1x").await;
    check_closes(&server, "no data", b"\x82\xa4type\x02\xa3nsp\xa1/").await;
    check_closes(&server, "data that is no list", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\xa1x").await;
    check_closes(&server, "an id in text", b"\x84\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1x\xa2id\xa11").await;
    check_closes(&server, "no map", b"\x01").await;
    check_closes(&server, "nothing", b"").await;
    check_closes(&server, "something behind", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1x\x00").await;
    check_closes(&server, "half of it", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91").await;
    check_closes(&server, "a length of 4 GiB", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\xdd\xff\xff\xff\xff")
        .await;
    check_closes(&server, "a text of 4 GiB", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xdb\xff\xff\xff\xff")
        .await;
    let bomb = [&b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data"[..], &[0x91; 500_000]].concat();
    check_closes(&server, "a depth bomb", &bomb).await;
}
