//! The rules of both parsers, one test each.

use super::*;
use crate::packet::{AckId, Outgoing};

fn parser() -> Parser {
    Parser::new(ProtocolVersion::V5)
}

/// Checks what a single text message gives, written back as `type namespace query ack event args_tail`.
fn check_text_of(version: ProtocolVersion, text: &str, expected: &str) {
    let packet = Parser::new(version).handle_text(text, &Limits::default()).unwrap().unwrap();
    let ack_id = packet.ack_id.map(|id| id.to_string()).unwrap_or_default();
    let event = packet.event.as_deref().unwrap_or("-");
    let got = format!(
        "{:?} {} {} {ack_id} {event} {}",
        packet.packet_type,
        packet.namespace,
        packet.query,
        packet.args_tail()
    );
    assert_eq!(got, expected, "{text}");
}

fn check_text(text: &str, expected: &str) {
    check_text_of(ProtocolVersion::V5, text, expected);
}

fn check_refused(text: &str, expected: DecodeError) {
    assert_eq!(parser().handle_text(text, &Limits::default()), Err(expected), "{text}");
}

fn syntax(at: usize) -> DecodeError {
    DecodeError::InvalidJson(JsonError::Syntax { at })
}

#[test]
fn parser_is_small_while_idle() {
    assert!(size_of::<Parser>() <= 16);
}

#[test]
fn every_part_of_the_grammar_may_be_left_out() {
    check_text("0", "Connect /   - ");
    check_text(r#"0{"token":"abc"}"#, r#"Connect /   - {"token":"abc"}"#);
    check_text("0/nsp", "Connect /nsp   - ");
    check_text("0/nsp,", "Connect /nsp   - ");
    check_text(r#"0/nsp,{"a":1}"#, r#"Connect /nsp   - {"a":1}"#);
    check_text("1", "Disconnect /   - ");
    check_text("1/nsp,", "Disconnect /nsp   - ");
    check_text(r#"2["hello",1]"#, "Event /   hello 1]");
    check_text(r#"212["hello"]"#, "Event /  12 hello ]");
    check_text(r#"2/nsp,12["x",[2],{}]"#, "Event /nsp  12 x [2],{}]");
    check_text("312[]", "Ack /  12 - []");
    check_text(r#"3/nsp,0["a"]"#, r#"Ack /nsp  0 - ["a"]"#);
    check_text(r#"4{"message":"no"}"#, r#"ConnectError /   - {"message":"no"}"#);
    check_text(r#"4/nope,"no""#, r#"ConnectError /nope   - "no""#);
    check_text("4", "ConnectError /   - ");
}

#[test]
fn an_answer_may_lack_its_id() {
    check_text("3[1]", "Ack /   - [1]");
}

#[test]
fn an_answer_without_data_has_no_arguments() {
    check_text("312", "Ack /  12 - []");
    check_text("3/nsp,", "Ack /nsp   - []");
    check_refused("312 ", DecodeError::InvalidPayload);
}

#[test]
fn connect_ignores_an_ack_id() {
    check_text("07{}", "Connect /  7 - {}");
}

#[test]
fn event_names_may_be_numbers_or_escaped() {
    check_text("2[1,2]", "Event /   1 2]");
    check_text("2[-1.5e3]", "Event /   -1.5e3 ]");
    check_text(r#"2["\u0061\n",2]"#, "Event /   a\n 2]");
    check_text(r#"2["\ud800"]"#, "Event /   \u{fffd} ]");
    check_text(r#"2["",1]"#, "Event /    1]");
}

#[test]
fn white_space_of_json_is_allowed_and_cut_at_the_ends() {
    check_text("2 [ \"a\" , 1 ] \n", "Event /   a  1 ]");
    check_text("2[\"a\" ]", "Event /   a ]");
    check_refused("0 ", DecodeError::InvalidPayload);
    check_refused("2\u{a0}[\"a\"]", syntax(0));
}

#[test]
fn query_is_cut_off_in_protocol_4_only() {
    check_text_of(ProtocolVersion::V4, "0/nsp?token=abc&x=1,", "Connect /nsp token=abc&x=1  - ");
    check_text_of(ProtocolVersion::V4, "0/?a=1?b", "Connect / a=1?b  - ");
    check_text_of(ProtocolVersion::V5, "0/nsp?token=abc,", "Connect /nsp?token=abc   - ");
}

#[test]
fn placeholder_in_a_text_packet_is_data() {
    check_text(r#"2["b",{"_placeholder":true,"num":7}]"#, r#"Event /   b {"_placeholder":true,"num":7}]"#);
}

#[test]
fn unknown_types_are_refused() {
    for text in ["", "abc", "7", "9[]", " 2[]", "-", "é", "\u{660}"] {
        check_refused(text, DecodeError::UnknownPacketType);
    }
}

#[test]
fn data_must_suit_the_type() {
    for text in [
        "2",
        "2{}",
        "2[]",
        "2[{}]",
        "2[null]",
        "2[[\"a\"]]",
        "2[true]",
        "2\"a\"",
        "21",
        "0[]",
        "0\"a\"",
        "0null",
        r#"1{"a":1}"#,
        "1[]",
        "3{}",
        "3\"a\"",
        "4[]",
        "4null",
    ] {
        check_refused(text, DecodeError::InvalidPayload);
    }
}

#[test]
fn data_must_be_json() {
    check_refused("0abc", syntax(0));
    check_refused(r#"2abc["x"]"#, syntax(0));
    check_refused(r#"2["a",]"#, syntax(5));
    check_refused(r#"2["a"]x"#, syntax(5));
    check_refused(r#"2["a"#, syntax(3));
    check_refused(r#"2{"a"}"#, syntax(4));
    check_refused(r#"3[1"#, syntax(2));
    check_refused(r#"0{"a":'b'}"#, syntax(5));
}

#[test]
fn reserved_names_are_refused_by_the_default_parser() {
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        check_refused(&format!(r#"2["{name}",1]"#), DecodeError::ReservedEvent);
        let escaped = name.replacen('n', r"\u006e", 1).replacen('d', r"\u0064", 1);
        check_refused(&format!(r#"2["{escaped}",1]"#), DecodeError::ReservedEvent);
        check_refused(&format!(r#"51-["{name}"]"#), DecodeError::ReservedEvent);
    }
    check_text(r#"2["message"]"#, "Event /   message ]");
    check_text(r#"3["disconnect"]"#, r#"Ack /   - ["disconnect"]"#);
}

#[test]
fn attachment_counts_are_digits_and_not_zero() {
    for text in [
        "5",
        "6",
        "50-[\"a\"]",
        "60-[]",
        "5x-",
        "5-[\"a\"]",
        "5[\"a\"]",
        "51[\"a\"]",
        "51",
        "5 1-[\"a\"]",
        "51e0-[\"a\"]",
        "500000000001-[\"a\"]",
    ] {
        check_refused(text, DecodeError::IllegalAttachments);
    }
}

#[test]
fn attachments_are_bounded() {
    check_refused("511-[\"a\"]", DecodeError::TooManyAttachments { got: 11, max: 10 });
    check_refused("59999999999-[\"a\"]", DecodeError::TooManyAttachments { got: 9_999_999_999, max: 10 });
    assert_eq!(parser().handle_text("510-[\"a\"]", &Limits::default()), Ok(None));
}

#[test]
fn placeholders_must_suit_the_attachments() {
    for num in ["1", "-1", "\"0\"", "null", "0.5"] {
        let text = format!(r#"51-["a",{{"_placeholder":true,"num":{num}}}]"#);
        check_refused(&text, DecodeError::IllegalPlaceholder);
    }
    check_refused(r#"51-["a",{"_placeholder":true}]"#, DecodeError::IllegalPlaceholder);
}

#[test]
fn ack_ids_have_64_bits() {
    check_text("218446744073709551615[\"a\"]", "Event /  18446744073709551615 a ]");
    check_text("2007[\"a\"]", "Event /  7 a ]");
    check_refused("218446744073709551616[\"a\"]", DecodeError::InvalidAckId);
    check_refused(&format!("2{}[\"a\"]", "9".repeat(100_000)), DecodeError::InvalidAckId);
}

#[test]
fn names_are_bounded_in_bytes() {
    let longest = "é".repeat(128);
    check_text(&format!("2[\"{longest}\"]"), &format!("Event /   {longest} ]"));
    let too_long = DecodeError::EventNameTooLong { max: 256 };
    check_refused(&format!("2[\"{longest}a\"]"), too_long);
    check_refused(&format!("2[\"{}\"]", r"\u0061".repeat(257)), too_long);
    check_refused(&format!("2[\"{}\"]", r"\u0061".repeat(100_000)), too_long);
    check_refused(&format!("2[{}]", "1".repeat(257)), too_long);
    check_text(&format!("0/{}", "a".repeat(255)), &format!("Connect /{}   - ", "a".repeat(255)));
    check_refused(&format!("0/{}", "a".repeat(256)), DecodeError::NamespaceTooLong { max: 256 });
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| format!("2[\"a\",{}{}]", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(parser().handle_text(&nested(128), &Limits::default()).is_ok());
    let too_deep = DecodeError::InvalidJson(JsonError::TooDeep { max: 128 });
    check_refused(&nested(129), too_deep);
    check_refused(&nested(400_000), too_deep);
    check_refused(&format!("0{}", r#"{"a":"#.repeat(400_000)), too_deep);
    check_refused(&format!("51-[\"a\",{}", "[".repeat(400_000)), too_deep);
}

#[test]
fn a_text_event_borrows_from_its_frame() {
    let frame = r#"2/nsp,1["hello",{"a":"\n"}]"#;
    let packet = parser().handle_text(frame, &Limits::default()).unwrap().unwrap();
    assert!(matches!(packet.data, Cow::Borrowed(_)));
    assert!(matches!(packet.namespace, Cow::Borrowed(_)));
    assert!(matches!(packet.event, Some(Cow::Borrowed("hello"))));
    assert_eq!(packet.attachments.capacity(), 0);
    assert_eq!(packet.clone().into_owned(), packet);
}

#[test]
fn a_binary_packet_is_complete_with_its_last_attachment() {
    let limits = Limits::default();
    let mut parser = parser();
    let header = r#"52-/nsp,7["b",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#;
    assert_eq!(parser.handle_text(header, &limits), Ok(None));
    let held = parser.held_bytes();
    assert!(held >= 66);
    assert_eq!(parser.handle_binary(&[1, 2], &limits), Ok(None));
    assert_eq!(parser.held_bytes(), held + 2);
    let packet = parser.handle_binary(&[3], &limits).unwrap().unwrap();
    assert_eq!(packet.packet_type, PacketType::BinaryEvent);
    assert_eq!((&*packet.namespace, packet.ack_id), ("/nsp", Some(AckId(7))));
    assert_eq!(packet.event.as_deref(), Some("b"));
    assert_eq!(packet.args_tail(), r#"{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#);
    assert_eq!(packet.attachments, [Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])]);
    assert_eq!(parser.held_bytes(), 0);
    assert!(parser.handle_text("2[\"next\"]", &limits).unwrap().is_some());
}

#[test]
fn attachments_may_be_empty_and_unused() {
    let limits = Limits::default();
    let mut parser = parser();
    assert_eq!(parser.handle_text(r#"51-["b"]"#, &limits), Ok(None));
    let packet = parser.handle_binary(&[], &limits).unwrap().unwrap();
    assert!(packet.is_binary());
    assert_eq!(packet.attachments, [Bytes::new()]);
}

#[test]
fn text_between_header_and_attachment_is_refused() {
    let limits = Limits::default();
    let mut parser = parser();
    assert_eq!(parser.handle_text(r#"51-["b"]"#, &limits), Ok(None));
    assert_eq!(parser.handle_text(r#"2["a"]"#, &limits), Err(DecodeError::UnexpectedText));
}

#[test]
fn binary_without_header_is_refused_by_the_default_parser() {
    let limits = Limits::default();
    let mut v4 = Parser::new(ProtocolVersion::V4);
    assert_eq!(v4.handle_binary(&[0x80], &limits), Err(DecodeError::UnexpectedBinary));
    let mut v5 = parser();
    v5.handle_text("0", &limits).unwrap();
    assert_eq!(v5.handle_binary(&[0x80], &limits), Err(DecodeError::UnexpectedBinary));
}

#[test]
fn packet_size_counts_text_and_attachments() {
    let limits = Limits { packet_bytes_max: 20, ..Limits::default() };
    let too_large = Err(DecodeError::PacketTooLarge { max: 20 });
    assert_eq!(parser().handle_text("2[\"abcdefghijklmnopqrs\"]", &limits), too_large);
    let mut parser = parser();
    assert_eq!(parser.handle_text(r#"52-["b"]"#, &limits), Ok(None));
    assert_eq!(parser.handle_binary(&[0; 10], &limits), Ok(None));
    assert_eq!(parser.handle_binary(&[0; 10], &limits), too_large);
}

#[test]
fn first_message_of_protocol_5_decides_the_parser() {
    let limits = Limits::default();
    let mut text = parser();
    assert_eq!(text.kind(), ParserKind::Default);
    text.handle_text("0", &limits).unwrap();
    assert_eq!(text.kind(), ParserKind::Default);

    let mut msgpack = parser();
    msgpack.handle_binary(&hex("82a47479706500a36e7370a12f"), &limits).unwrap();
    assert_eq!(msgpack.kind(), ParserKind::Msgpack);
    assert_eq!(msgpack.handle_text("0", &limits), Err(DecodeError::TextFromMsgpackClient));

    assert_eq!(Parser::new(ProtocolVersion::V4).kind(), ParserKind::Default);
}

#[test]
fn refusals_say_what_node_says() {
    let check = |error: DecodeError, message: &str| assert!(error.to_string().starts_with(message));
    check(DecodeError::UnknownPacketType, "unknown packet type");
    check(DecodeError::InvalidPayload, "invalid payload");
    check(syntax(3), "invalid payload");
    check(DecodeError::ReservedEvent, "invalid payload");
    check(DecodeError::IllegalAttachments, "Illegal attachments");
    check(DecodeError::TooManyAttachments { got: 11, max: 10 }, "too many attachments");
    check(DecodeError::UnexpectedText, "got plaintext data when reconstructing a packet");
    check(DecodeError::UnexpectedBinary, "got binary data when not reconstructing a packet");
    check(DecodeError::IllegalPlaceholder, "illegal attachments");
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A msgpack event in `/` whose data is the given bytes.
fn msgpack_event(data: &str) -> Vec<u8> {
    hex(&format!("83a47479706502a464617461{data}a36e7370a12f"))
}

/// Checks the JSON text and the attachments of a msgpack event. `data` is given in hex.
fn check_msgpack(data: &str, text: &str, attachments: &[&[u8]]) {
    let message = msgpack_event(data);
    let packet = parser().handle_binary(&message, &Limits::default()).unwrap().unwrap();
    assert_eq!(packet.data, text, "{data}");
    assert_eq!(packet.attachments, attachments, "{data}");
    assert_eq!(packet.is_binary(), !attachments.is_empty());
}

fn check_msgpack_refused(message: &[u8], expected: DecodeError) {
    assert_eq!(parser().handle_binary(message, &Limits::default()), Err(expected), "{message:02x?}");
}

#[test]
fn msgpack_values_become_json() {
    check_msgpack("91a161", r#"["a"]"#, &[]);
    check_msgpack("9101", "[1]", &[]);
    check_msgpack("96a161c0c2c3ffcb3ff8000000000000", r#"["a",null,false,true,-1,1.5]"#, &[]);
    check_msgpack("92a161a5610a22c3a9", r#"["a","a\n\"é"]"#, &[]);
}

#[test]
fn msgpack_containers_nest() {
    check_msgpack("92a16182a178920102a17980", r#"["a",{"x":[1,2],"y":{}}]"#, &[]);
    check_msgpack("93a1619080", r#"["a",[],{}]"#, &[]);
}

#[test]
fn msgpack_numbers_are_keys_by_their_text() {
    check_msgpack("92a1618301c0ffc0cb3ff8000000000000c0", r#"["a",{"1":null,"-1":null,"1.5":null}]"#, &[]);
    for key in ["c0", "c3", "90", "80", "c400", "d40000"] {
        check_msgpack_refused(&msgpack_event(&format!("92a16181{key}c0")), MsgpackError::InvalidKey.into());
    }
}

#[test]
fn msgpack_has_values_that_json_has_not() {
    check_msgpack("92a161d40000", r#"["a",null]"#, &[]);
    check_msgpack("92a161d70000000000000005dc", r#"["a","1970-01-01T00:00:01.500Z"]"#, &[]);
    check_msgpack("92a161d7007fffffffffffffff", r#"["a",null]"#, &[]);
    check_msgpack("92a161d6ff00000001", r#"["a","1970-01-01T00:00:01.000Z"]"#, &[]);
    check_msgpack("93a161cb7ff8000000000000cbfff0000000000000", r#"["a",null,null]"#, &[]);
    check_msgpack_refused(
        &msgpack_event("92a161d40500"),
        MsgpackError::UnknownExtension { kind: 5, bytes: 1 }.into(),
    );
}

#[test]
fn msgpack_binaries_become_attachments() {
    check_msgpack(
        "93a161c4020102c400",
        r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        &[&[1, 2], &[]],
    );
    let eleven = format!("9ca161{}", "c400".repeat(11));
    check_msgpack_refused(&msgpack_event(&eleven), DecodeError::TooManyAttachments { got: 11, max: 10 });
}

/// `{"_placeholder": true, "num": 0}` as msgpack.
const PLACEHOLDER_MAP: &str = "82ac5f706c616365686f6c646572c3a36e756d00";

#[test]
fn msgpack_map_like_a_placeholder_is_data_only_where_no_binary_is() {
    check_msgpack(&format!("92a161{PLACEHOLDER_MAP}"), r#"["a",{"_placeholder":true,"num":0}]"#, &[]);
    check_msgpack_refused(
        &msgpack_event(&format!("93a161{PLACEHOLDER_MAP}c400")),
        DecodeError::LiteralPlaceholder,
    );
}

#[test]
fn msgpack_fields_may_be_absent_or_undefined() {
    let check = |message: &str, data: &str, ack_id: Option<u64>| {
        let message = hex(message);
        let packet = parser().handle_binary(&message, &Limits::default()).unwrap().unwrap();
        assert_eq!((&*packet.data, packet.ack_id), (data, ack_id.map(AckId)));
    };
    check("82a47479706500a36e7370a12f", "", None);
    check("83a47479706500a464617461d40000a36e7370a12f", "", None);
    check("83a47479706501a464617461c0a36e7370a12f", "", None);
    check("84a47479706503a46461746190a269640ca36e7370a12f", "[]", Some(12));
    check("84a47479706503a46461746190a26964cb4028000000000000a36e7370a12f", "[]", Some(12));
    check("84a47479706503a46461746190a26964d40000a36e7370a12f", "[]", None);
    check("83a76f7074696f6e7381a8636f6d7072657373c3a47479706500a36e7370a12f", "", None);
}

#[test]
fn msgpack_packets_need_type_namespace_and_suitable_data() {
    let check = |message: &str, expected: DecodeError| check_msgpack_refused(&hex(message), expected);
    check("81a36e7370a12f", DecodeError::UnknownPacketType);
    check("82a47479706505a36e7370a12f", DecodeError::UnknownPacketType);
    check("82a474797065a130a36e7370a12f", DecodeError::UnknownPacketType);
    check("81a47479706500", DecodeError::InvalidNamespace);
    check("82a47479706500a36e7370a178", DecodeError::InvalidNamespace);
    check("82a47479706500a36e7370a32f2c78", DecodeError::InvalidNamespace);
    check("82a47479706502a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706500a46461746190a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706500a46461746181a161c40101a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706501a46461746180a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706502a46461746190a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706502a46461746191c0a36e7370a12f", DecodeError::InvalidPayload);
    check("83a47479706500a26964ffa36e7370a12f", DecodeError::InvalidAckId);
    check("93", MsgpackError::NotAMap.into());
    check("", MsgpackError::Truncated.into());
    check("82a47479706500a36e7370a12f00", MsgpackError::TrailingBytes { count: 1 }.into());
    check("8101c0", MsgpackError::InvalidKey.into());
}

#[test]
fn msgpack_does_not_refuse_reserved_names() {
    check_msgpack("91aa646973636f6e6e656374", r#"["disconnect"]"#, &[]);
}

#[test]
fn msgpack_nesting_is_bounded() {
    let nested = |levels: usize| msgpack_event(&format!("92a161{}c0", "91".repeat(levels - 1)));
    assert!(parser().handle_binary(&nested(128), &Limits::default()).is_ok());
    let too_deep = DecodeError::InvalidJson(JsonError::TooDeep { max: 128 });
    check_msgpack_refused(&nested(129), too_deep);
    let arrays = [hex("81a464617461"), vec![0x91; 1_000_000]].concat();
    assert_eq!(parser().handle_binary(&arrays, &Limits::default()), Err(too_deep));
    let maps = [hex("81a464617461"), [0x81, 0x00].repeat(500_000)].concat();
    assert_eq!(parser().handle_binary(&maps, &Limits::default()), Err(too_deep));
}

#[test]
fn msgpack_counts_allocate_nothing() {
    for head in ["ddffffffff", "dfffffffff", "c6ffffffff", "dbffffffff", "c9ffffffff00"] {
        check_msgpack_refused(&hex(&format!("81a464617461{head}")), MsgpackError::Truncated.into());
        check_msgpack_refused(&hex(&format!("81a178{head}")), MsgpackError::Truncated.into());
    }
    check_msgpack_refused(&hex("dfffffffff"), MsgpackError::Truncated.into());
}

#[test]
fn msgpack_cannot_unfold_beyond_the_packet_size() {
    let limits = Limits { packet_bytes_max: 1000, ..Limits::default() };
    let too_large = Err(DecodeError::PacketTooLarge { max: 1000 });
    // 400 bytes of `false` are 2,400 bytes of JSON; 250 control characters are 1,500.
    let falses = msgpack_event(&format!("dc0190{}", "c2".repeat(400)));
    assert_eq!(parser().handle_binary(&falses, &limits), too_large);
    let controls = msgpack_event(&format!("91d9fa{}", "01".repeat(250)));
    assert_eq!(parser().handle_binary(&controls, &limits), too_large);
    let binary = msgpack_event(&format!("92a161c503e8{}", "00".repeat(1000)));
    assert_eq!(parser().handle_binary(&binary, &limits), too_large);
}

#[test]
fn encoders_write_what_the_other_side_reads() {
    let check = |packet: Outgoing<'_>, text: &str, msgpack: &str| {
        let (mut as_text, mut as_msgpack) = (Vec::new(), Vec::new());
        text::encode(&packet, &mut as_text);
        msgpack::encode(&packet, &mut as_msgpack).unwrap();
        assert_eq!(String::from_utf8(as_text).unwrap(), text);
        assert_eq!(as_msgpack, hex(msgpack), "{text}");
    };
    use PacketType::{Ack, Connect, Disconnect, Event};
    let ack_id = Some(AckId(7));
    check(Outgoing::text(Connect, "/", None, ""), "0", "82a47479706500a36e7370a12f");
    check(Outgoing::text(Disconnect, "/n", None, ""), "1/n,", "82 a474797065 01 a36e7370 a22f6e");
    check(
        Outgoing::text(Ack, "/n", ack_id, "[1,2.0]"),
        "3/n,7[1,2.0]",
        "84 a474797065 03 a464617461 92 01 02 a26964 07 a36e7370 a22f6e",
    );
    let attachments = [Bytes::from_static(&[7])];
    let data = r#"["b",{"x":{"_placeholder":true,"num":0,"y":[[]]}},[1]]"#;
    let event =
        Outgoing { attachments: &attachments, binary: true, ..Outgoing::text(Event, "/", None, data) };
    check(
        event,
        &format!("51-{data}"),
        "83 a474797065 02 a464617461 93 a162 81a178c40107 9101 a36e7370 a12f",
    );
    check(
        Outgoing { binary: false, ..event },
        &format!("2{data}"),
        "83 a474797065 02 a464617461 93 a162 81a178 83 ac5f706c616365686f6c646572 c3 a36e756d 00 a179 9190 9101 a36e7370 a12f",
    );
}

#[test]
fn msgpack_encoder_refuses_broken_promises_and_appends_nothing() {
    let attachments = [Bytes::from_static(&[7])];
    let check = |data: &str| {
        let packet = Outgoing {
            attachments: &attachments,
            binary: true,
            ..Outgoing::text(PacketType::Event, "/", None, data)
        };
        let mut out = b"before".to_vec();
        assert!(msgpack::encode(&packet, &mut out).is_err(), "{data}");
        assert_eq!(out, b"before");
    };
    check(r#"["a""#);
    check(r#"["a",{"_placeholder":true,"num":1}]"#);
    check(r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#);
}
