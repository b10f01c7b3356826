//! The one binary. Each subcommand has a file of its own; here is the command line and how a process ends.
//!
//! - [`config`]: the sections joined into one configuration, and what follows from a subcommand
//! - [`serve`]: `serve` and `edge`, the processes that hold clients
//! - [`mod@emitter`]: `emitter`, the process that only publishes
//! - [`client`]: what the callers of the emitter's API have in common: [`emit`], [`sockets`], [`rooms`], [`disconnect`]
//! - [`listen`]: a client that prints events; [`token`]: keys and tokens
//! - [`mod@reference`]: `check-config`, `default-config` and `config-doc`
//!
//! Exit codes: 0 when asked to stop or done, 2 when the command line, the configuration or a port is at fault (with
//! one line on stderr that says what to do), 1 for what fails later, 3 for what was done only in part because
//! somebody did not answer.

mod client;
mod config;
mod disconnect;
mod emit;
mod emitter;
mod listen;
mod reference;
mod rooms;
mod serve;
mod sockets;
mod token;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use ops::config::load::{ConfigError, Sources};

use clap_complete::Shell;

use crate::config::Mode;
use crate::disconnect::DisconnectArguments;
use crate::emit::EmitArguments;
use crate::listen::ListenArguments;
use crate::rooms::RoomsArguments;
use crate::sockets::SocketsArguments;
use crate::token::TokenArguments;

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
    /// Runs an emitter: the API by which backends reach sockets through a broker.
    Emitter(SourceArguments),
    /// Sends an event to sockets.
    Emit(Box<EmitArguments>),
    /// Lists the sockets of a namespace, all over the cluster.
    Sockets(Box<SocketsArguments>),
    /// Lists the rooms of a namespace with the number of sockets in each.
    Rooms(Box<RoomsArguments>),
    /// Disconnects sockets.
    Disconnect(Box<DisconnectArguments>),
    /// Prints the events that a client in a namespace or a room is sent, live.
    Listen(Box<ListenArguments>),
    /// Makes and explains API keys and tokens.
    Token(TokenArguments),
    /// Prints what a shell needs to complete this command line.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Checks the configuration and says whether it is accepted.
    CheckConfig(SourceArguments),
    /// Prints a configuration file with every key at its default.
    DefaultConfig,
    /// Prints the reference of every key as Markdown.
    ConfigDoc,
}

/// Given before or after the subcommand; both count.
#[derive(Debug, Clone, Args)]
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
    /// Something was done, but somebody had no part in it: exit code 3.
    Partly(String),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Running(_) => ExitCode::from(1),
            Self::Partly(_) => ExitCode::from(3),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Running(message) | Self::Partly(message) => out.write_str(message),
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
        Some(Command::Emitter(after)) => emitter::run(&before.followed_by(after)),
        Some(Command::Emit(arguments)) => emit::run(&arguments),
        Some(Command::Sockets(arguments)) => sockets::run(&arguments),
        Some(Command::Rooms(arguments)) => rooms::run(&arguments),
        Some(Command::Disconnect(arguments)) => disconnect::run(&arguments),
        Some(Command::Listen(arguments)) => listen::run(&arguments),
        Some(Command::Token(arguments)) => token::run(&arguments),
        Some(Command::Completion { shell }) => complete(shell),
        Some(Command::CheckConfig(after)) => reference::check(&before.followed_by(after)),
        Some(Command::DefaultConfig) => print(&reference::default_config()),
        Some(Command::ConfigDoc) => print(&reference::config_doc()),
    }
}

/// The completion of a shell.
fn complete(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "jackfield", &mut script);
    print(&String::from_utf8_lossy(&script))
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
