//! The order of sources, and every refusal with its wording.

use super::*;
use crate::{config_choice, config_section};

config_choice! {
    /// A shade.
    pub enum Shade {
        /// Little of it.
        Light = "light",
        /// Much of it.
        Dark = "dark",
    }
}

config_section! {
    /// Everything.
    pub struct Everything {
        /// What is seen.
        pub face: Face = Face::default(),
    }
}

config_section! {
    /// What is seen.
    pub struct Face {
        /// How often it blinks.
        pub blink_ms: u64 = 25 => 1..=100,
        /// Its names.
        pub names: Vec<String> = vec!["a".to_owned()],
        /// Its title.
        pub title: String = String::new(),
        /// Its shade.
        pub shade: Shade = Shade::Light,
        /// Its inside.
        pub inner: Inner = Inner::default(),
    }
    consistent: |face| (face.inner.rooms_max == 13 && face.blink_ms == 13).then(|| "two thirteens".to_owned())
}

config_section! {
    /// The inside.
    pub struct Inner {
        /// How many rooms.
        pub rooms_max: usize = 7,
        /// Whether it is open.
        pub open: bool = true,
    }
}

fn file(text: &str) -> tempfile::Temporary {
    tempfile::Temporary::with(text)
}

/// A file that goes when its test ends.
mod tempfile {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(super) struct Temporary(pub(super) PathBuf);

    impl Temporary {
        pub(super) fn with(text: &str) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("jackfield-load-{}-{number}.toml", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _gone = std::fs::remove_file(&self.0);
        }
    }
}

fn set(settings: &[&str]) -> Result<Everything, String> {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    load(&Sources { settings, ..Sources::default() })
        .map(|loaded| loaded.config)
        .map_err(|error| error.to_string())
}

fn from_file(text: &str) -> Result<Everything, String> {
    let file = file(text);
    let shown = file.0.display().to_string();
    load(&Sources { file: Some(file.0.clone()), ..Sources::default() })
        .map(|loaded| loaded.config)
        .map_err(|error| error.to_string().replace(&shown, "FILE"))
}

fn from_variable(name: &str, value: &str) -> Result<Everything, String> {
    let variables = vec![(name.to_owned(), value.to_owned())];
    load(&Sources { variables, ..Sources::default() })
        .map(|loaded| loaded.config)
        .map_err(|error| error.to_string())
}

#[test]
fn the_later_source_wins_and_is_remembered() {
    let file = file("[face]\nblink_ms = 1\ntitle = 'file'\n[face.inner]\nrooms_max = 1\n");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sources = Sources {
        file: Some(file.0.clone()),
        variables: vec![
            variable("JACKFIELD_FACE__BLINK_MS", "2"),
            variable("JACKFIELD_FACE__INNER__ROOMS_MAX", "2"),
        ],
        settings: vec!["face.blink_ms=3".to_owned()],
    };
    let loaded = load::<Everything>(&sources).unwrap();
    assert_eq!(loaded.config.face.blink_ms, 3);
    assert_eq!(loaded.config.face.inner.rooms_max, 2);
    assert_eq!(loaded.config.face.title, "file");
    assert_eq!(loaded.origin("face.blink_ms"), Some(&Origin::Setting));
    assert_eq!(loaded.origin("face.title"), Some(&Origin::File { path: file.0.clone(), line: 3 }));
    assert_eq!(loaded.origin("face.shade"), None);
}

#[test]
fn bare_text_is_understood_by_the_key_s_shape() {
    let names = |text: &str| set(&[&format!("face.names={text}")]).unwrap().face.names;
    assert_eq!(names("/,/custom"), ["/", "/custom"]);
    assert_eq!(names("/custom"), ["/custom"]);
    assert_eq!(names("[\"a,b\", \"c\"]"), ["a,b", "c"]);
    assert_eq!(names("\"a,b\""), ["a,b"]);
    assert!(names("").is_empty());
    assert_eq!(set(&["face.title=42"]).unwrap().face.title, "42");
    assert_eq!(set(&["face.title=a=b"]).unwrap().face.title, "a=b");
    assert_eq!(set(&["face.title=\"quoted\""]).unwrap().face.title, "quoted");
    assert_eq!(set(&["face.shade=dark"]).unwrap().face.shade, Shade::Dark);
    assert_eq!(set(&["face.blink_ms= 1_0 "]).unwrap().face.blink_ms, 10);
    assert!(!set(&["face.inner.open=false"]).unwrap().face.inner.open);
}

#[test]
fn unknown_keys_name_the_nearest_and_the_source() {
    let cases = [
        (set(&["face.blnk_ms=3"]), "unknown key face.blnk_ms (--set); did you mean face.blink_ms?"),
        (set(&["rooms_max=3"]), "unknown key rooms_max (--set); did you mean face.inner.rooms_max?"),
        (set(&["q=3"]), "unknown key q (--set); `jackfield default-config` lists every key"),
        (set(&["=3"]), "--set =3 is not a key with a value; write --set section.key=value"),
        (
            from_file("# head\n[face]\nblink_ms = 1\n[face.iner]\nrooms_max = 3\n"),
            "unknown key face.iner (FILE line 4); did you mean face.inner?",
        ),
        (
            from_file("\n[face.inner]\nrooms = 3\n"),
            "unknown key face.inner.rooms (FILE line 3); did you mean face.inner.rooms_max?",
        ),
        (
            from_variable("JACKFIELD_FACE__BLINKMS", "3"),
            "unknown key face.blinkms (variable JACKFIELD_FACE__BLINKMS); did you mean face.blink_ms?",
        ),
        (
            from_variable("JACKFIELD_FACE_BLINK_MS", "3"),
            "unknown key face_blink_ms (variable JACKFIELD_FACE_BLINK_MS); did you mean JACKFIELD_FACE__BLINK_MS?",
        ),
    ];
    for (result, expected) in cases {
        assert_eq!(result.unwrap_err(), expected);
    }
}

#[test]
fn an_orchestrator_s_own_variables_are_ignored() {
    for name in ["JACKFIELD_SERVICE_HOST", "JACKFIELD_PORT_3000_TCP", "PATH"] {
        assert_eq!(from_variable(name, "tcp://10.0.0.1:3000"), Ok(Everything::default()), "{name}");
    }
}

#[test]
fn refused_values_name_what_is_allowed() {
    let cases = [
        (
            set(&["face.blink_ms=soon"]),
            "face.blink_ms = \"soon\" (--set) is not accepted; give a whole number from 1 to 100",
        ),
        (
            set(&["face.blink_ms=101"]),
            "face.blink_ms = 101 (--set) is not accepted; give a whole number from 1 to 100",
        ),
        (
            set(&["face.inner.rooms_max=-1"]),
            "face.inner.rooms_max = -1 (--set) is not accepted; give a whole number",
        ),
        (
            set(&["face.shade=grey"]),
            "face.shade = \"grey\" (--set) is not accepted; give \"light\" or \"dark\"",
        ),
        (
            from_file("[face]\nnames = 'a'\n"),
            "face.names = \"a\" (FILE line 2) is not accepted; give a list, text each",
        ),
        (
            from_file("face = 3\n"),
            "face = 3 (FILE line 1) is not accepted; give a key inside it, such as face.blink_ms",
        ),
        (
            set(&["face.blink_ms"]),
            "--set face.blink_ms is not a key with a value; write --set section.key=value",
        ),
        (set(&["face.blink_ms=13", "face.inner.rooms_max=13"]), "two thirteens"),
    ];
    for (result, expected) in cases {
        assert_eq!(result.unwrap_err(), expected);
    }
}

#[test]
fn every_error_is_one_short_line() {
    let long = "x".repeat(10_000);
    let hostile = [
        set(&[&format!("face.title{long}=1")]),
        set(&["fa\nce=1"]),
        set(&[&format!("face.blink_ms=\"\"\"\n{long}\"\"\"")]),
        set(&["face.blink_ms={a = 1,\nb = 2}"]),
        from_file("[face\nblink_ms = 1"),
        from_file("[face]\nblink_ms = \"a\n"),
        from_file("[face]\nblink_ms = 1\nblink_ms = 2\n"),
        from_file(&format!("[face]\nblink_ms = {}", "[".repeat(100_000))),
    ];
    for result in hostile {
        let message = result.unwrap_err();
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
    assert!(from_file("[face]\nblink_ms = = 1").unwrap_err().starts_with("FILE line 2 is not valid TOML: "));
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let missing = load::<Everything>(&Sources { file: Some("/nowhere/at/all".into()), ..Sources::default() });
    let message = missing.unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read the configuration file /nowhere/at/all: No such file"),
        "{message}"
    );
    let large = from_file(&"#\n".repeat(1 << 20)).unwrap_err();
    assert_eq!(
        large,
        "the configuration file FILE is larger than 1048576 bytes; give a TOML file with --config"
    );
}
