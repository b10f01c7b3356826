//! An event as callers give it, checked and in the form in which it travels.

use cluster_proto::limits::Limits;
use cluster_proto::message::JsonData;
use serde_json::value::RawValue;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::{event_data, is_reserved_event};

use crate::api::problem::{Code, Problem};
use crate::document::binary::take_out;

/// Checks the path of a namespace; without one it is `/`.
pub(crate) fn namespace(path: Option<&str>, limits: &Limits) -> Result<NamespacePath, Problem> {
    let Some(path) = path else { return Ok(NamespacePath::root()) };
    let max = limits.packet.name_bytes_max;
    if path.len() > max {
        return Err(Problem::new(Code::InvalidNamespace, format!("a namespace has at most {max} bytes")));
    }
    NamespacePath::parse(path).map_err(|error| Problem::new(Code::InvalidNamespace, error.to_string()))
}

/// Checks name and arguments of an event and joins them to the array that clients get.
pub(crate) fn event(
    name: &str,
    args: Option<&RawValue>,
    data: Option<&RawValue>,
    limits: &Limits,
) -> Result<JsonData, Problem> {
    check_name(name, limits)?;
    let (field, args) = match (args, data) {
        (Some(_), Some(_)) => {
            let detail = "give either \"args\", a list, or \"data\", one argument";
            return Err(Problem::new(Code::InvalidBody, detail).at("/data"));
        }
        (Some(args), None) if !args.get().starts_with('[') => {
            let detail = "\"args\" is a list; one argument alone is \"data\"";
            return Err(Problem::new(Code::InvalidBody, detail).at("/args"));
        }
        (Some(args), None) => ("/args", args.get().to_owned()),
        (None, Some(data)) => ("/data", format!("[{}]", data.get())),
        (None, None) => return Ok(JsonData::text(event_data(name, "]"))),
    };
    let (args, attachments) =
        take_out(&args, limits.packet.depth_max).map_err(|error| Problem::from(error).at(field))?;
    let max = limits.packet.attachments_max;
    if attachments.len() > max {
        let detail = format!("an event has at most {max} binary values, this one {}", attachments.len());
        return Err(Problem::new(Code::TooManyAttachments, detail).at(field));
    }
    let tail = args.strip_prefix('[').unwrap_or("]");
    let event = JsonData::with_attachments(event_data(name, tail), attachments);
    let max = limits.packet.packet_bytes_max;
    if event.bytes_len() > max {
        let detail = format!("an event has at most {max} bytes, this one {}", event.bytes_len());
        return Err(Problem::new(Code::EventTooLarge, detail).at(field));
    }
    Ok(event)
}

fn check_name(name: &str, limits: &Limits) -> Result<(), Problem> {
    let max = limits.packet.name_bytes_max;
    if name.is_empty() || name.len() > max {
        let detail = format!("the name of an event has 1 to {max} bytes");
        return Err(Problem::new(Code::InvalidEvent, detail).at("/event"));
    }
    if is_reserved_event(name) {
        let detail = format!("clients disconnect at an event called {name:?}; choose another name");
        return Err(Problem::new(Code::ReservedEvent, detail).at("/event"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn check(args: Option<&str>, data: Option<&str>, expected: Result<&str, (Code, &str)>) {
        let (args, data) = (args.map(raw), data.map(raw));
        let event = event("e", args.as_deref(), data.as_deref(), &Limits::default());
        let event = event.as_ref().map(|event| event.text.as_str());
        let event = event.map_err(|problem| (problem.code, problem.pointer.as_deref().unwrap_or_default()));
        assert_eq!(event, expected);
    }

    #[test]
    fn arguments_follow_the_name() {
        check(None, None, Ok(r#"["e"]"#));
        check(Some("[]"), None, Ok(r#"["e"]"#));
        check(Some("[ ]"), None, Ok(r#"["e" ]"#));
        check(Some("[1, {}]"), None, Ok(r#"["e",1, {}]"#));
        check(None, Some("null"), Ok(r#"["e",null]"#));
        check(None, Some("[1]"), Ok(r#"["e",[1]]"#));
        check(Some(r#"[{"$binary":""}]"#), None, Ok(r#"["e",{"_placeholder":true,"num":0}]"#));
    }

    #[test]
    fn bad_arguments_are_pointed_at() {
        check(Some("[]"), Some("1"), Err((Code::InvalidBody, "/data")));
        check(Some("{}"), None, Err((Code::InvalidBody, "/args")));
        check(None, Some(r#"{"$binary":1}"#), Err((Code::InvalidArgs, "/data")));
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        check(Some(&deep), None, Err((Code::InvalidArgs, "/args")));
        let many = format!("[{}]", [r#"{"$binary":""}"#; 11].join(","));
        check(Some(&many), None, Err((Code::TooManyAttachments, "/args")));
        let large = format!("[\"{}\"]", "x".repeat(4_000_000));
        check(Some(&large), None, Err((Code::EventTooLarge, "/args")));
    }

    #[test]
    fn names_are_bounded_and_not_reserved() {
        let check = |name: &str, code| {
            assert_eq!(event(name, None, None, &Limits::default()).unwrap_err().code, code, "{name}");
        };
        check("", Code::InvalidEvent);
        check(&"x".repeat(257), Code::InvalidEvent);
        check("disconnect", Code::ReservedEvent);
    }

    #[test]
    fn a_namespace_can_travel() {
        let limits = Limits::default();
        assert_eq!(namespace(None, &limits).unwrap().as_str(), "/");
        assert_eq!(namespace(Some("/chat"), &limits).unwrap().as_str(), "/chat");
        for path in ["", "chat", "/a,b", &format!("/{}", "x".repeat(256))] {
            assert_eq!(namespace(Some(path), &limits).unwrap_err().code, Code::InvalidNamespace, "{path}");
        }
    }
}
