//! The demo pages, which are part of the binary, and the official browser clients, which are read at start from
//! `edge.client_bundles_dir`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::EdgeConfig;
use crate::transport::reply::Reply;

/// The largest bundle file that is taken; the official ones are below 500 kB.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Files taken from the bundle folder.
const FILES_MAX: usize = 256;
/// What the pages call the path of the endpoint until they are served.
const PATH_IN_PAGES: &str = "data-path=\"/socket.io\"";

macro_rules! assets {
    ($($name:literal: $content_type:expr,)*) => {
        [$(($name, $content_type, include_str!(concat!("../../assets/", $name)),)),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "application/javascript; charset=utf-8";

/// The files of the demo pages, served below `/assets/`.
const ASSETS: [(&str, &str, &str); 12] = assets! {
    "index.html": HTML,
    "legacy.html": HTML,
    "app.js": SCRIPT,
    "client.js": SCRIPT,
    "engine.js": SCRIPT,
    "legacy.js": SCRIPT,
    "packet-log.js": SCRIPT,
    "page.js": SCRIPT,
    "snippets.js": SCRIPT,
    "wire-tap.js": SCRIPT,
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
};

/// One file to serve.
#[derive(Debug)]
struct StaticFile {
    content_type: &'static str,
    content: Bytes,
    etag: String,
    gzipped: OnceLock<Bytes>,
}

/// All files to serve, in memory.
#[derive(Debug, Default)]
pub struct StaticFiles {
    pages: HashMap<String, StaticFile>,
    bundles: HashMap<String, StaticFile>,
}

/// A bundle folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}; edge.client_bundles_dir must be a folder with the browser clients")]
pub struct BundleError {
    path: String,
    error: io::Error,
}

impl StaticFiles {
    /// Loads what is to be served: the bundles, and with `demo` the pages.
    ///
    /// # Errors
    /// [`BundleError`] when the configured folder or a file in it cannot be read.
    pub fn load(config: &EdgeConfig, demo: bool) -> Result<StaticFiles, BundleError> {
        let mut files = StaticFiles::default();
        if let Some(folder) = config.client_bundles() {
            load_bundles(folder, "", &mut files.bundles)?;
        }
        if demo {
            let path = format!("data-path=\"{}\"", config.path.trim_end_matches('/'));
            for (name, content_type, content) in ASSETS {
                let content = content.replace(PATH_IN_PAGES, &path);
                let url = match name {
                    "index.html" => "/".to_owned(),
                    "legacy.html" => "/legacy".to_owned(),
                    _ => format!("/assets/{name}"),
                };
                files.pages.insert(url, StaticFile::new(content_type, content.into()));
            }
        }
        Ok(files)
    }

    /// A page of the demo.
    pub fn page(&self, path: &str, if_none_match: Option<&str>, gzip: bool) -> Option<Reply> {
        let reply = self.pages.get(path)?.reply(if_none_match, gzip);
        // The demo's client may be imported by a page from anywhere: it holds no secret.
        Some(reply.with_header("access-control-allow-origin", "*"))
    }

    /// An official browser client: `name` is what follows the path of the endpoint.
    pub fn bundle(&self, name: &str, if_none_match: Option<&str>, gzip: bool) -> Reply {
        match self.bundles.get(name) {
            Some(file) => file.reply(if_none_match, gzip),
            None => Reply::new(
                404,
                "text/plain; charset=UTF-8",
                format!(
                    "This server has no {name}.\nThe official browser clients are served from the folder named \
                     by edge.client_bundles_dir: the files of the npm package socket.io-client, folder dist \
                     (4.x at its root, 2.x in v2/).\n"
                ),
            ),
        }
    }
}

/// Whether a request below the endpoint's path asks for a browser client.
pub fn is_bundle_name(name: &str) -> bool {
    name.ends_with(".js") || name.ends_with(".js.map")
}

fn load_bundles(
    folder: &Path,
    prefix: &str,
    into: &mut HashMap<String, StaticFile>,
) -> Result<(), BundleError> {
    let failed = |path: &Path, error| BundleError { path: path.display().to_string(), error };
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let metadata = fs::metadata(&path).map_err(|error| failed(&path, error))?;
        if metadata.is_dir() && prefix.is_empty() {
            load_bundles(&path, &format!("{name}/"), into)?;
        } else if metadata.is_file()
            && is_bundle_name(name)
            && metadata.len() <= FILE_BYTES_MAX
            && into.len() < FILES_MAX
        {
            let content = fs::read(&path).map_err(|error| failed(&path, error))?;
            let content_type =
                if name.ends_with(".map") { "application/json; charset=utf-8" } else { SCRIPT };
            into.insert(format!("{prefix}{name}"), StaticFile::new(content_type, content.into()));
        }
    }
    Ok(())
}

impl StaticFile {
    fn new(content_type: &'static str, content: Bytes) -> StaticFile {
        let etag = format!("\"{:016x}\"", fingerprint(&content));
        StaticFile { content_type, content, etag, gzipped: OnceLock::new() }
    }

    fn reply(&self, if_none_match: Option<&str>, gzip: bool) -> Reply {
        let known = if_none_match.is_some_and(|tags| {
            tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.etag || tag.trim() == "*")
        });
        let reply = if known {
            Reply::empty(304)
        } else if gzip {
            Reply::new(200, self.content_type, self.gzipped()).with_header("content-encoding", "gzip")
        } else {
            Reply::new(200, self.content_type, self.content.clone())
        };
        reply
            .with_header("etag", self.etag.clone())
            .with_header("cache-control", "public, max-age=0")
            .with_header("vary", "accept-encoding")
            .with_header("x-content-type-options", "nosniff")
    }

    fn gzipped(&self) -> Bytes {
        self.gzipped.get_or_init(|| gzip(&self.content)).clone()
    }
}

/// Compresses a body.
pub fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default().into()
}

/// FNV-1a: tells two versions of a file apart. Nothing hangs on it but a cache.
fn fingerprint(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_know_the_configured_path() {
        let config = EdgeConfig { path: "/live".to_owned(), ..EdgeConfig::default() };
        let files = StaticFiles::load(&config, true).unwrap();
        for page in ["/", "/legacy"] {
            let reply = files.page(page, None, false).unwrap();
            let text = String::from_utf8(reply.body.to_vec()).unwrap();
            assert!(text.contains("data-path=\"/live\""), "{page}");
        }
    }

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        let files = StaticFiles::load(&EdgeConfig::default(), true).unwrap();
        let first = files.page("/assets/style.css", None, true).unwrap();
        let etag =
            first.headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone()).unwrap();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            assert_eq!(files.page("/assets/style.css", Some(&known), true).unwrap().status, 304, "{known}");
        }
        assert_eq!(files.page("/assets/style.css", Some("\"x\""), true).unwrap().status, 200);
    }

    #[test]
    fn a_missing_bundle_says_where_bundles_come_from() {
        let reply = StaticFiles::default().bundle("socket.io.js", None, false);
        assert_eq!(reply.status, 404);
        assert!(String::from_utf8_lossy(&reply.body).contains("edge.client_bundles_dir"));
    }
}
