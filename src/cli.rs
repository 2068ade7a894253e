//! Owns the command line of `ottla`: its arguments and their help texts.
//!
//! Only parses arguments. Leaves running the commands to `main.rs` (serve) and `cli/health.rs`, and the meaning of
//! settings to `config`.

pub mod health;

use std::{io::Write, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config;

/// A Kafka-compatible broker in one binary. Without a command, `ottla` serves.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Runs the broker until SIGTERM or SIGINT.
    Serve(Serve),
    /// Asks a running broker for its APIs and its cluster; exits with 0 if it answers both.
    Health(Health),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
}

/// `ottla serve`.
#[derive(Clone, Debug, Default, Args, PartialEq, Eq)]
pub struct Serve {
    /// A config.toml, or an Apache server.properties; may be given more than once. Without it ./config.toml is read if
    /// it exists.
    #[arg(long = "config", value_name = "FILE")]
    config_files: Vec<PathBuf>,
    /// Sets one setting, with priority over files and environment; may be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// What to log: a level (error, warn, info, debug, trace), or filters such as info,ottla::raft=debug.
    #[arg(long = "log", value_name = "FILTER", env = "OTTLA_LOG", default_value = "info")]
    pub log_filter: String,
    /// How to log.
    #[arg(long, value_name = "FORMAT", env = "OTTLA_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

impl Serve {
    /// Its arguments that concern settings.
    pub fn settings(&self) -> config::Arguments {
        config::Arguments { config_files: self.config_files.clone(), overrides: self.overrides.clone() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

/// `ottla health`.
#[derive(Clone, Debug, Args, PartialEq, Eq)]
pub struct Health {
    /// The broker to ask, as host:port. Default: the first client listener in the configuration files and the KAFKA_
    /// environment, or 127.0.0.1:9092.
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap_server: Option<String>,
    /// A configuration file that the broker was started with; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// How long to wait, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    pub timeout_ms: u64,
}

/// The requested command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the broker.
    Serve(Serve),
    /// Ask a broker.
    Health(Health),
    /// Print a completion script.
    Completions(clap_complete::Shell),
}

impl Command {
    /// Reads the process's arguments. Exits after printing help (code 0), the version (0), or an error (2).
    pub fn from_process() -> Command {
        CommandLine::parse().into()
    }
}

impl From<CommandLine> for Command {
    fn from(line: CommandLine) -> Self {
        match line.command {
            None => Command::Serve(line.serve),
            Some(Subcommands::Serve(serve)) => Command::Serve(serve),
            Some(Subcommands::Health(health)) => Command::Health(health),
            Some(Subcommands::Completions { shell }) => Command::Completions(shell),
        }
    }
}

/// Writes the completion script of a shell.
pub fn write_completions(shell: clap_complete::Shell, to: &mut dyn Write) {
    let mut command = CommandLine::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "ottla", &mut script);
    // A reader that closed early (`| head`) needs no error message.
    let _ = to.write_all(&script);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Command {
        let line = std::iter::once(&"ottla").chain(arguments);
        CommandLine::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).into()
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        let arguments =
            ["--config", "a.toml", "--set", "a=b", "--set", "c=d=e", "--log", "debug", "--log-format", "json"];
        let short = parse(&arguments);
        assert_eq!(short, parse(&[&["serve"], &arguments[..]].concat()));
        let Command::Serve(serve) = short else { panic!("{short:?}") };
        assert_eq!(serve.settings().config_files, [PathBuf::from("a.toml")]);
        assert_eq!(serve.settings().overrides, ["a=b", "c=d=e"]);
        assert_eq!((serve.log_filter.as_str(), serve.log_format), ("debug", LogFormat::Json));
        assert!(matches!(parse(&[]), Command::Serve(serve) if serve.settings() == config::Arguments::default()));
    }

    #[test]
    fn health_and_completions_are_commands() {
        let Command::Health(health) = parse(&["health", "--bootstrap-server", "h:1"]) else { panic!("not health") };
        assert_eq!(health.bootstrap_server.as_deref(), Some("h:1"));
        let mut script = Vec::new();
        write_completions(clap_complete::Shell::Bash, &mut script);
        assert!(String::from_utf8_lossy(&script).contains("--bootstrap-server"));
        assert!(CommandLine::try_parse_from(["ottla", "--nonsense"]).is_err());
    }
}
