//! The one binary. Each subcommand has a file of its own; here is the command line and how a process ends.
//!
//! - [`config`]: the sections joined into one configuration, and what follows from a subcommand
//! - [`serve`]: `serve` and `edge`, the processes that hold clients
//! - [`mod@reference`]: `check-config`, `default-config` and `config-doc`
//!
//! Exit codes: 0 when asked to stop or done, 2 when the command line, the configuration or a port is at fault (with
//! one line on stderr that says what to do), 1 for what fails later.

mod config;
mod reference;
mod serve;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ops::config::load::{ConfigError, Sources};

use crate::config::Mode;

/// Self-hosted, horizontally scaled Socket.IO gateway.
///
/// Without a subcommand it serves: one process, the memory broker, the demo upstream.
#[derive(Debug, Parser)]
#[command(name = "jackfield", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: SourceArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything in one process (the default).
    Serve(SourceArguments),
    /// Runs an edge: the process that holds client connections.
    Edge(SourceArguments),
    /// Checks the configuration and says whether it is accepted.
    CheckConfig(SourceArguments),
    /// Prints a configuration file with every key at its default.
    DefaultConfig,
    /// Prints the reference of every key as Markdown.
    ConfigDoc,
}

/// Given before or after the subcommand; both count.
#[derive(Debug, Args)]
struct SourceArguments {
    /// Reads this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key; may be repeated, the last one wins.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    settings: Vec<String>,
}

impl SourceArguments {
    /// Joins what stood before the subcommand with what stands after it; the latter wins.
    fn followed_by(mut self, later: Self) -> Sources {
        self.settings.extend(later.settings);
        Sources::of_process(later.config.or(self.config), self.settings)
    }

    fn alone(self) -> Sources {
        Sources::of_process(self.config, self.settings)
    }
}

/// Why the process ends otherwise than well; the message is one line.
#[derive(Debug)]
enum Failure {
    /// The command line, the configuration or a port: exit code 2.
    Usage(String),
    /// Something that failed while running: exit code 1.
    Running(String),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Running(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Running(message) => out.write_str(message),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

fn main() -> ExitCode {
    let outcome = match CommandLine::try_parse() {
        Ok(line) => run(line),
        Err(error) if error.use_stderr() => Err(misuse(&error)),
        Err(help) => print(&help.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With stderr closed there is nobody left to tell.
            let _unheard = writeln!(io::stderr(), "error: {failure}");
            failure.code()
        }
    }
}

fn run(line: CommandLine) -> Result<(), Failure> {
    let before = line.sources;
    match line.command {
        None => serve::run(Mode::Serve, &before.alone()),
        Some(Command::Serve(after)) => serve::run(Mode::Serve, &before.followed_by(after)),
        Some(Command::Edge(after)) => serve::run(Mode::Edge, &before.followed_by(after)),
        Some(Command::CheckConfig(after)) => reference::check(&before.followed_by(after)),
        Some(Command::DefaultConfig) => print(&reference::default_config()),
        Some(Command::ConfigDoc) => print(&reference::config_doc()),
    }
}

/// The first line of what the parser of the command line says; the rest is advice that `--help` gives too.
fn misuse(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    Failure::Usage(format!("{first}; `jackfield --help` lists what there is"))
}

/// Writes to stdout. A reader that closed its end early, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Running(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
