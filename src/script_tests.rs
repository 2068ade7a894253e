//! Runs script tests: a file contains commands and, under `----`, their outcomes. `UPDATE=1 cargo test` rewrites the
//! outcomes, and a reviewer reads the diff. Leaves the commands to their users.
#![allow(clippy::disallowed_methods)] // Tests read and rewrite their scripts.

use std::{fmt::Write as _, path::Path};

/// Runs each command of the script at `path`, which is relative to the repository, and compares the outcomes.
pub(crate) fn run_script(path: &str, mut run: impl FnMut(&str) -> String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let script = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut actual = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(actual, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut outcome = run(line);
        while let Some(command) = lines.next_if(|line| !line.is_empty() && *line != "----") {
            writeln!(actual, "{command}").unwrap();
            if !command.starts_with('#') {
                outcome += &run(command);
            }
        }
        // Skips the old outcome; the new one replaces it.
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        write!(actual, "----\n{outcome}").unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &actual).unwrap();
    } else {
        assert_eq!(actual, script, "{path}: run with UPDATE=1 to accept the new outcome");
    }
}

/// A test for each script, which calls `run` with its name.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*
    };
}
pub(crate) use scripts;
