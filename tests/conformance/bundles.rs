//! The official browser bundles, read from a folder that the operator names.

use std::path::{Path, PathBuf};

use crate::wire::{Request, Server};

/// A folder with bundles of our own making (the tests need no official file), removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bundles-{name}")));
        std::fs::create_dir_all(folder.0.join("v2")).expect("mkdir");
        for name in BUNDLES {
            std::fs::write(folder.0.join(name), format!("/* {name} */")).expect("write");
        }
        std::fs::write(folder.0.join("v2/socket.io.js"), "/* two */").expect("write");
        std::fs::write(folder.0.join("secret.txt"), "secret").expect("write");
        folder
    }

    /// The setting that names this folder, or one inside it.
    fn setting(&self, inside: &str) -> String {
        format!("edge.client_bundles_dir={}", self.0.join(inside).display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

const BUNDLES: [&str; 4] =
    ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"];

#[tokio::test]
async fn bundles_are_served_with_an_entity_tag() {
    let folder = Folder::new("served");
    let server = Server::socketio(&[&folder.setting("")]);
    for name in BUNDLES {
        let target = format!("/socket.io/{name}");
        let reply = server.send(Request::get(&target)).await;
        reply.expect(200, &format!("/* {name} */"));
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/javascript")));
        let tag = reply.header("etag").expect("an ETag").to_owned();
        for condition in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let reply = server.send(Request::get(&target).header("If-None-Match", &condition)).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{condition}");
            assert_eq!(reply.header("etag"), Some(tag.as_str()));
        }
        let reply = server.send(Request::get(&target).header("If-None-Match", "\"other\"")).await;
        assert_eq!(reply.status, 200);
    }
    server.send(Request::get("/socket.io/v2/socket.io.js")).await.expect(200, "/* two */");
}

#[tokio::test]
async fn nothing_but_bundles_is_served() {
    let folder = Folder::new("secret");
    let server = Server::socketio(&[&folder.setting("v2")]);
    for path in ["secret.txt", "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "v2/../../secret.txt"]
    {
        let reply = server.send(Request::get(&format!("/socket.io/{path}"))).await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
        assert!(!reply.text().contains("secret") || reply.header("content-type") == Some("application/json"));
    }
}

#[tokio::test]
async fn without_a_folder_the_answer_says_what_to_set() {
    let server = Server::socketio(&[]);
    let reply = server.send(Request::get("/socket.io/socket.io.js")).await;
    assert_eq!(reply.status, 404);
    assert!(reply.text().contains("edge.client_bundles_dir"), "{}", reply.text());
}
