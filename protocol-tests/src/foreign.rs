//! Clients and suites in other languages: each has a directory with an `install` script that does nothing when there is
//! nothing to do, and programs that end with a non-zero status where a broker is not what they expect.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::broker::Broker;

/// `protocol-tests/`.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A client's directory below target/clients, as its `install` script leaves it.
pub fn installed(client: &str) -> PathBuf {
    // One at a time: tests of the same client start side by side.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let guard = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    succeed(Command::new(root().join("clients").join(client).join("install")), &format!("install the {client} client"));
    drop(guard);
    match std::env::var_os("OTTLA_CLIENTS_DIR") {
        Some(directory) => Path::new(&directory).join(client),
        None => root().join("../target/clients").join(client),
    }
}

/// A program of a client's sources.
pub fn program(client: &str, name: &str) -> PathBuf {
    root().join("clients").join(client).join(name)
}

/// Runs one scenario of a client's program against a broker of its own.
pub fn scenario(mut command: Command, name: &str) {
    let broker = Broker::start_default();
    command.arg(broker.bootstrap()).arg(name);
    succeed(command, name);
}

/// Runs a suite that others wrote, as `protocol-tests/suites/NAME/run` does it, with the broker under test.
pub fn suite(name: &str) {
    let mut command = Command::new(root().join("suites").join(name).join("run"));
    command.env("OTTLA_BIN", crate::broker::binary());
    succeed(command, name);
}

/// Runs a program to its end and answers its standard output; panics with all it said where it was no success.
pub fn succeed(mut command: Command, what: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: start {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {command:?} ended with {}\n{stdout}{said}", output.status);
    stdout
}
