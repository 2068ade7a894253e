//! Clients and suites in other languages. Each has a directory with an `install` script, which does nothing if all is
//! installed, and programs that end with a non-zero status if the broker does not behave as expected.

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

/// Installs a client and returns its directory below target/clients.
pub fn installed(client: &str) -> PathBuf {
    // Tests of the same client run in parallel, but only one may install it.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let guard = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    succeed(Command::new(root().join("clients").join(client).join("install")), &format!("install the {client} client"));
    drop(guard);
    match std::env::var_os("OTTLA_CLIENTS_DIR") {
        Some(directory) => Path::new(&directory).join(client),
        None => root().join("../target/clients").join(client),
    }
}

/// The path of a program in a client's sources.
pub fn program(client: &str, name: &str) -> PathBuf {
    root().join("clients").join(client).join(name)
}

/// Runs one scenario of a client's program against a new broker.
pub fn scenario(mut command: Command, name: &str) {
    let broker = Broker::start_default();
    command.arg(broker.bootstrap()).arg(name);
    succeed(command, name);
}

/// Runs a third-party suite through `protocol-tests/suites/NAME/run` against the broker under test.
pub fn suite(name: &str) {
    suite_on(name, None);
}

/// The same with three brokers in one cluster, for a suite that needs only one.
pub fn suite_on_three_brokers(name: &str) {
    suite_on(name, Some("3"));
}

fn suite_on(name: &str, brokers: Option<&str>) {
    let mut command = Command::new(root().join("suites").join(name).join("run"));
    command.env("OTTLA_BIN", crate::broker::binary());
    if let Some(brokers) = brokers {
        command.env("SUITE_BROKERS", brokers);
    }
    succeed(command, name);
}

/// Runs a program to its end and returns its standard output; panics with all its output if it fails.
pub fn succeed(mut command: Command, what: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: start {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {command:?} ended with {}\n{stdout}{said}", output.status);
    stdout
}
