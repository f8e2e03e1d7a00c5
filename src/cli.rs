//! The command line: arguments to one command, its result to an exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

use crate::cmd::{self, Command};

/// Arguments that every command takes.
#[derive(clap::Args, Debug, Clone)]
pub struct Global {
    /// Folder of the store [default: `cache` in the project's root].
    #[arg(long, global = true, value_name = "DIR", env = "RUNNER_CACHE")]
    pub cache: Option<PathBuf>,
    /// Ask no shared cache: use what is on this machine alone.
    #[arg(long, global = true, env = "RUNNER_OFFLINE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub offline: bool,
    /// Colour of messages.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// Say more on stderr: -v for what the engine decides, -vv for all.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When messages are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether stderr is to be coloured.
    pub fn stderr(self) -> bool {
        use std::io::IsTerminal;
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}

/// Runs vision-language experiments written as a graph in one TOML file: hashes
/// every node's inputs, runs only what changed, and prints the result tables.
///
/// A first run:
///   runner exec pipelines/demo.toml
/// Another temperature, without encoding an image again:
///   runner exec pipelines/demo.toml -s temperature=0.9
/// What would run, and why:
///   runner plan pipelines/demo.toml -s temperature=0.9
///
/// Results go to stdout, everything else to stderr.
#[derive(Parser, Debug)]
#[command(
    name = "runner",
    version,
    verbatim_doc_comment,
    after_help = "Exit codes:\n  0  ok\n  1  a node failed, or its result cannot be read back\n  2  wrong command line\n  3  wrong pipeline file\n  4  `plan --check` found work\n  5  the store is corrupt (`cache verify`)\n  6  a record is not to be trusted (`cache verify`, `cache audit`)\n  7  a shared cache that is `required` cannot be reached\n  8  stopped by the user; run again to resume"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Parses the command line, runs the command, prints its error and gives its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.global.verbose {
        0 => "warn",
        1 => "runner=debug,warn",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RUNNER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(cli.global.color.stderr())
        .without_time()
        // It would tell on stderr that stderr cannot be written, and panic for that.
        .log_internal_errors(false)
        .init();
    // Beyond that the HTTP client logs whole requests, keys of servers included.
    log::set_max_level(log::max_level().min(log::LevelFilter::Debug));
    cmd::dispatch(cli.command, &cli.global)
}
