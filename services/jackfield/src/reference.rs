//! `check-config`, `default-config` and `config-doc`.

use adapter::adapter::Adapter;
use edge::listener::peer::port::PeerPort;
use edge::listener::static_files::StaticFiles;
use ops::config::load::{Sources, load};
use ops::config::reference;

use crate::config::GatewayConfig;
use crate::{Failure, print};

/// What the reference says before its first section.
const PREFACE: &str = "\
# Configuration

Every key of Jackfield, with its default, its meaning and the values it accepts.
This page is printed by `jackfield config-doc`; a test keeps it equal to the program.

Values come from three places, and the later one wins:

1. a TOML file, named with `--config FILE`;
2. environment variables, `JACKFIELD_` and the key in capitals with `__` for each dot;
3. `--set key=value` on the command line, which may be repeated.

The same key in each of them:

```toml
[edge.limits]
rooms_max = 50000
```

```sh
JACKFIELD_EDGE__LIMITS__ROOMS_MAX=50000 jackfield
jackfield --set edge.limits.rooms_max=50000
```

In a variable or a `--set`, a value is read as TOML where that fits the key, else as text, so quotes are optional.
A list may be written with commas: `--set edge.namespaces=/,/custom`.
An unknown key is refused, and the message names the nearest known one; a refused value is answered with what the key accepts.
A variable without `__` is ignored, since orchestrators invent names such as `JACKFIELD_SERVICE_HOST`; only a key that was written with single underscores is refused, with its right spelling.

Names that end in `_ms` are durations in milliseconds, names with `_bytes_` are sizes in bytes.
A secret is never a value: a key that ends in `_file` names the file that holds it.
The configuration is read once at start.

`jackfield check-config` says whether a configuration is accepted, `jackfield default-config` prints a file with every key at its default.
A running process shows what holds for it at `/config` of its ops listener.
";

/// Says on stdout that the configuration is accepted, or fails with what is wrong: in its values, or in the files
/// that it names.
pub(crate) fn check(sources: &Sources) -> Result<(), Failure> {
    let config = load::<GatewayConfig>(sources)?.config;
    ops::admin::check(&config.ops).map_err(|error| Failure::Usage(error.to_string()))?;
    emitter::server::check(&config.emitter).map_err(|error| Failure::Usage(error.to_string()))?;
    StaticFiles::load(&config.edge, false).map_err(|error| Failure::Usage(error.to_string()))?;
    Adapter::check(&config.broker).map_err(|error| Failure::Usage(error.to_string()))?;
    PeerPort::check(&config.cluster).map_err(|error| Failure::Usage(error.to_string()))?;
    print("the configuration is accepted\n")
}

/// A configuration file with every key at its default.
pub(crate) fn default_config() -> String {
    reference::default_file::<GatewayConfig>()
}

/// The reference of every key as Markdown.
pub(crate) fn config_doc() -> String {
    format!("{PREFACE}{}", reference::markdown::<GatewayConfig>())
}
