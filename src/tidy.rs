//! Tests of the source itself: the direction of the layers, a `//!` head in every file, one row per API file,
//! up-to-date generated pages.
//!
//! `UPDATE=1 cargo test tidy` rewrites the generated pages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::api::{Forward, Listeners};

/// Which modules may use which: a file may use its own row and the rows before it. The row of a file is the longest
/// prefix of its path.
const LAYERS: &[&str] = &[
    "types",
    "env",
    "loggers",
    "config",
    "protocol",
    "metadata",
    "controller",
    "coordinator/group",
    "metrics",
    "peer",
    "log",
    "raft",
    "replica",
    "coordinator",
    "api",
    "network",
    "console",
    "broker",
    "cli",
    "main",
];

/// State machines that only decide: no clock, no disk, no network, no tasks of their own.
const PURE: &[&str] = &[
    "controller",
    "coordinator/group",
    "replica/state",
    "log/validator",
    "log/producer_state",
    "log/leader_epochs",
    "log/retention",
];

struct Source {
    /// Path below src, without the extension.
    path: String,
    /// The text without its test modules.
    code: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Collects all files below a directory.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    let source = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let path = file
            .strip_prefix(root().join("src"))
            .unwrap()
            .with_extension("")
            .to_str()
            .unwrap()
            .trim_end_matches("/mod")
            .to_owned();
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
        Source { path, code, text }
    };
    found.into_iter().map(source).collect()
}

fn is_test_only(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap();
    path.starts_with("sim")
        || path == "lib"
        || path == "tidy"
        || last.contains("test")
        || matches!(last, "scripts" | "simulation")
}

fn layer(path: &str) -> Option<usize> {
    let matches = |row: &str| path == row || path.strip_prefix(row).is_some_and(|rest| rest.starts_with('/'));
    LAYERS.iter().enumerate().filter(|(_, row)| matches(row)).max_by_key(|(_, row)| row.len()).map(|(at, _)| at)
}

/// Paths that follow `crate::` in the code, also inside one level of braces.
fn used_paths(code: &str) -> Vec<String> {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        used.push(group[start..i].to_owned());
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.push(group[start..i].to_owned());
                        start = i + 1;
                    }
                    _ => {}
                }
            }
        } else {
            used.push(rest.to_owned());
        }
    }
    let path = |used: String| {
        let end = used
            .trim_start()
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(used.trim_start().len());
        used.trim_start()[..end].trim_end_matches(':').replace("::", "/")
    };
    used.into_iter().map(path).filter(|path| !path.is_empty()).collect()
}

#[test]
fn layers_only_look_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        let own =
            layer(&source.path).unwrap_or_else(|| panic!("src/{}.rs is in no layer: add it to the table", source.path));
        for used in used_paths(&source.code) {
            match layer(&used) {
                Some(other) if other > own => {
                    wrong.push(format!("src/{}.rs uses crate::{}", source.path, used.replace('/', "::")))
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction of the layers:\n{}", wrong.join("\n"));
}

#[test]
fn pure_machines_touch_nothing() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        if PURE.iter().any(|pure| source.path == *pure || source.path.starts_with(&format!("{pure}/"))) {
            for word in ["crate::env", "tokio::", "std::fs", "std::time::Instant", "SystemTime", "HashMap"] {
                if source.code.contains(word) {
                    wrong.push(format!("src/{}.rs contains {word}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// docs/adr/0005: one policy for poisoned locks, implemented in one place.
#[test]
fn locks_are_taken_through_env_lock() {
    // The log output continues even after a panic of another thread.
    let own_policy = ["env/lock", "env/log_output"];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        let code = source.code.split("\n#[cfg(any(test, feature = \"sim\"))]\npub mod").next().unwrap();
        for word in [".lock().unwrap", ".lock().expect", ".read().expect", ".write().expect", "PoisonError"] {
            if code.contains(word) && !own_policy.contains(&source.path.as_str()) {
                wrong.push(format!("src/{}.rs contains {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names that a file declares as vectors: `name: Vec<`, `name = Vec::`, `name = vec![`.
fn vectors(code: &str) -> BTreeSet<&str> {
    let ends_with_name = |before: &str| {
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        before.len() - start
    };
    let mut found = BTreeSet::new();
    for declaration in [": Vec<", " = Vec::", " = vec!["] {
        for (at, _) in code.match_indices(declaration) {
            found.insert(&code[at - ends_with_name(&code[..at])..at]);
        }
    }
    found
}

/// The lines with their numbers; a chain of calls over several lines is joined into one.
fn chains(code: &str) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        match joined.last_mut() {
            Some((_, chain)) if line.trim_start().starts_with('.') => chain.push_str(line.trim_start()),
            _ => joined.push((number, line.to_owned())),
        }
    }
    joined
}

/// Searching a list whose length a client chooses, once for each element of another list, is quadratic. So each search
/// through a list needs a comment that starts with "linear:" and says why its cost is bounded.
#[test]
fn linear_searches_say_why_they_are_bounded() {
    const SEARCHES: [&str; 9] = [
        ".iter().any(",
        ".iter().find(",
        ".iter_mut().find(",
        ".iter().position(",
        ".into_iter().find(",
        ".values().find(",
        ".keys().any(",
        ".keys().find(",
        "].contains(",
    ];
    let mut silent = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        if !["api/", "config/layers", "controller/", "coordinator/"]
            .iter()
            .any(|folder| source.path.starts_with(folder))
        {
            continue;
        }
        let contains: Vec<String> = vectors(&source.code).iter().map(|name| format!("{name}.contains(")).collect();
        let mut before = "";
        for (number, line) in &chains(&source.code) {
            let is_name = |search: &String| {
                line.find(search.as_str())
                    .is_some_and(|at| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.'))
            };
            let searches = SEARCHES.iter().any(|search| line.contains(search)) || contains.iter().any(is_name);
            let explained = line.contains("// linear:") || before.contains("// linear:");
            if searches && !explained && !line.trim_start().starts_with("//") {
                silent.push(format!("src/{}.rs:{}: {}", source.path, number + 1, line.trim()));
            }
            before = line;
        }
    }
    assert!(silent.is_empty(), "linear searches without a reason:\n{}", silent.join("\n"));
}

/// Names that a file declares as hash maps or hash sets, also inside a lock.
fn hash_types(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for declaration in ["HashMap<", "HashSet<", "HashMap::", "HashSet::"] {
        for (at, _) in code.match_indices(declaration) {
            let before = code[..at].trim_end_matches("Mutex<").trim_end_matches("RwLock<");
            let before = before.trim_end_matches("Option<").trim_end_matches("std::collections::");
            if let Some(before) = before.strip_suffix(": ").or_else(|| before.strip_suffix(" = ")) {
                let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
                found.insert(&before[start..]);
            }
        }
    }
    found
}

/// The order of a hash map differs from run to run. If it can be seen, a simulation cannot be replayed from its seed.
/// So each iteration needs a comment that starts with "order:" and says why the order cannot be seen.
#[test]
fn hash_maps_are_not_iterated() {
    const VISITS: [&str; 9] = [
        ".iter()",
        ".iter_mut()",
        ".keys()",
        ".values()",
        ".values_mut()",
        ".drain(",
        ".into_iter()",
        ".into_values()",
        ".retain(",
    ];
    let mut silent = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        let lists = vectors(&source.code);
        let names: Vec<&str> = hash_types(&source.code).into_iter().filter(|name| !lists.contains(name)).collect();
        let mut before = "";
        for (number, line) in &chains(&source.code) {
            let visits = |name: &&str| {
                // A field of another type may have the same name, and a list that becomes the map as well.
                let of_name = |before: &str| match before.strip_suffix('.') {
                    Some(owner) => owner.ends_with("self") || owner.ends_with(')'),
                    None => !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.contains("Hash"),
                };
                let mut places = line.match_indices(*name).filter(|(at, _)| of_name(&line[..*at]));
                places.any(|(at, _)| {
                    let rest = line[at + name.len()..].trim_start_matches(')');
                    let is_loop = rest == " {" && line.trim_start().starts_with("for ");
                    is_loop || VISITS.iter().any(|visit| rest.starts_with(visit))
                })
            };
            let explained = line.contains("// order:") || before.contains("// order:");
            if names.iter().any(visits) && !explained && !line.trim_start().starts_with("//") {
                silent.push(format!("src/{}.rs:{}: {}", source.path, number + 1, line.trim()));
            }
            before = line;
        }
    }
    assert!(silent.is_empty(), "hash maps are iterated without a reason:\n{}", silent.join("\n"));
}

/// tokio's `watch` wakes waiting tasks in an order that it draws: `env::Watched` does not.
#[test]
fn waiting_tasks_are_woken_in_order() {
    let draws = |source: &&Source| !is_test_only(&source.path) && source.code.contains("watch::");
    let drawn: Vec<String> = sources().iter().filter(draws).map(|source| source.path.clone()).collect();
    assert!(drawn.is_empty(), "tokio::sync::watch is used: {drawn:?}");
}

/// An unbiased `select!` polls its branches in an order that tokio draws, so a seed could not be replayed.
#[test]
fn every_select_is_biased() {
    let mut unbiased = Vec::new();
    for source in sources().iter().filter(|source| source.path != "tidy") {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (at, pair) in lines.windows(2).enumerate() {
            if pair[0].contains("select! {") && pair[1] != "biased;" {
                unbiased.push(format!("src/{}.rs:{}", source.path, at + 1));
            }
        }
    }
    assert!(unbiased.is_empty(), "select! without biased: {unbiased:#?}");
}

/// A loop that yields until something happens hangs the whole run if it does not: `sim::until` fails instead.
#[test]
fn waits_of_tests_have_a_bound() {
    let mut unbounded = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (at, pair) in lines.windows(2).enumerate() {
            let is_loop = pair[0].ends_with('{') && (pair[0].starts_with("while ") || pair[0].contains("loop {"));
            let only_waits = ["tokio::task::yield_now()", "thread::yield_now()", "::sleep("];
            if is_loop && only_waits.iter().any(|wait| pair[1].contains(wait)) {
                unbounded.push(format!("src/{}.rs:{}", source.path, at + 1));
            }
        }
    }
    assert!(unbounded.is_empty(), "wait with sim::until, which has a bound: {unbounded:#?}");
}

/// Comments may be as wide as the code that rustfmt writes.
#[test]
fn comments_are_as_wide_as_the_code() {
    const WIDTH: usize = 120;
    let mut wide = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > WIDTH {
                wide.push(format!("src/{}.rs:{}", source.path, number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {WIDTH} characters: {wide:#?}");
}

/// A file imports each crate in one declaration: `cargo +nightly fmt -- --config imports_granularity=Crate,
/// group_imports=StdExternalCrate` writes it in this way.
#[test]
fn each_crate_is_used_in_one_declaration() {
    let mut twice = Vec::new();
    for source in sources() {
        let mut seen = BTreeSet::new();
        for line in source.text.lines() {
            let Some(used) = line.strip_prefix("use ") else { continue };
            let root = used.split("::").next().unwrap_or(used);
            if root != used && !seen.insert(root) {
                twice.push(format!("src/{}.rs: {root}", source.path));
            }
        }
    }
    assert!(twice.is_empty(), "several declarations for one crate: {twice:#?}");
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<String> =
        sources().iter().filter(|source| !source.text.starts_with("//!")).map(|source| source.path.clone()).collect();
    assert!(silent.is_empty(), "files without a //! head: {silent:?}");
}

#[test]
fn every_api_file_has_its_row() {
    let table = fs::read_to_string(root().join("src/api/table.rs")).unwrap();
    let shared = [
        "api",
        "api/acls",
        "api/answer_bounds",
        "api/answers",
        "api/authorized",
        "api/broker_loggers",
        "api/context",
        "api/dispatch",
        "api/errors",
        "api/groups",
        "api/leader_hints",
        "api/metadata_fetch",
        "api/reply",
        "api/table",
        "api/topics",
    ];
    let missing: Vec<String> = sources()
        .iter()
        .filter(|source| source.path.starts_with("api") && !shared.contains(&source.path.as_str()))
        .map(|source| source.path.trim_start_matches("api/").to_owned())
        .filter(|name| !table.contains(&format!(" {name}::handle)")))
        .collect();
    assert!(missing.is_empty(), "files without a row in src/api/table.rs: {missing:?}");
}

/// Compares a generated page with the file in the repository, or rewrites the file.
fn check_page(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is out of date: run UPDATE=1 cargo test tidy");
}

#[test]
fn every_module_that_logs_is_a_logger() {
    let mut modules = BTreeSet::from(["ottla".to_owned()]);
    let logs = |code: &str| {
        ["error", "warn", "info", "debug", "trace"].iter().any(|l| code.contains(&format!("tracing::{l}!")))
    };
    for source in sources().iter().filter(|source| !is_test_only(&source.path) && source.path != "main") {
        let mut module = logs(&source.code).then(|| format!("ottla.{}", source.path.replace('/', ".")));
        while let Some(name) = module {
            module = name.rsplit_once('.').map(|(around, _)| around.to_owned());
            modules.insert(name);
        }
    }
    let mut file = String::from(
        "//! The modules that log, and the modules around them. Written by `UPDATE=1 cargo test tidy` from the source.\n\n/// Each of them is a logger.\npub const MODULES: &[&str] = &[\n",
    );
    modules.iter().for_each(|module| writeln!(file, "    \"{module}\",").unwrap());
    check_page("src/loggers/modules.rs", &(file + "];\n"));
}

#[test]
fn the_page_of_apis_is_up_to_date() {
    let mut page = String::from(
        "# APIs\n\nWritten by `UPDATE=1 cargo test tidy` from the table in src/api/table.rs.\n\n| key | API | versions | told to clients | flexible from | listeners | may need | decided by |\n|--:|---|---|---|--:|---|---|---|\n",
    );
    for api in crate::api::APIS {
        let versions = api.versions;
        let (min, max) = (versions.min, versions.max);
        let flexible = if versions.is_flexible(max) { versions.flexible_from.to_string() } else { "never".to_owned() };
        let listeners = match api.listeners {
            Listeners::Brokers => "brokers",
            Listeners::Controllers => "controllers",
            Listeners::BrokersAndControllers => "brokers, controllers",
        };
        let needs: Vec<String> = api.needs.iter().map(|(operation, kind)| format!("{operation:?} {kind:?}")).collect();
        let decided_by = match api.forward {
            Forward::No => "the broker",
            Forward::ToController => "the controller",
            Forward::AfterCheck => "the broker, then the controller",
        };
        writeln!(
            page,
            "| {} | {} | {min}–{max} | {}–{max} | {flexible} | {listeners} | {} | {decided_by} |",
            api.key,
            api.name,
            versions.advertised_min,
            needs.join(", "),
        )
        .unwrap();
    }
    check_page("docs/generated/apis.md", &page);
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let mut page = String::from(
        "# Metrics\n\nWritten by `UPDATE=1 cargo test tidy` from the table in src/metrics/table.rs. Served as Prometheus' text at /metrics where `ottla.http.listener` is set.\n",
    );
    let mut section = "";
    for metric in crate::metrics::METRICS {
        if metric.section != section {
            section = metric.section;
            write!(page, "\n## {section}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n").unwrap();
        }
        let (kind, labels) = (metric.kind.as_str(), metric.labels.join(", "));
        writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.doc).unwrap();
    }
    check_page("docs/generated/metrics.md", &page);
}

#[test]
fn the_page_of_deviations_is_up_to_date() {
    let mut by_file: BTreeMap<String, String> = BTreeMap::new();
    for source in sources() {
        let head: Vec<&str> = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .map(|line| line.trim_start_matches("//!").trim())
            .collect();
        let misspelt = head.iter().any(|line| line.starts_with("Deviation:"));
        assert!(!misspelt, "{}: the word is Deviations", source.path);
        let is_hidden = head.iter().any(|line| line.contains(" Deviations: "));
        assert!(!is_hidden, "{}: Deviations must begin a line, otherwise the generated page omits them", source.path);
        let Some(start) = head.iter().position(|line| line.starts_with("Deviations:")) else { continue };
        let end = head[start + 1..]
            .iter()
            .position(|line| line.is_empty() || line.starts_with("Version notes:"))
            .map_or(head.len(), |at| start + 1 + at);
        by_file.insert(source.path, head[start..end].join(" ").trim_start_matches("Deviations:").trim().to_owned());
    }
    let mut page = String::from(
        "# Where Ottla differs from Apache Kafka 4.3\n\nWritten by `UPDATE=1 cargo test tidy` from the `Deviations:` lines of the source. Defaults that differ are in configs.md.\n\n",
    );
    for (path, deviation) in by_file {
        writeln!(page, "- `src/{path}.rs`: {deviation}").unwrap();
    }
    check_page("docs/generated/deviations.md", &page);
}

#[test]
fn paths_named_in_the_docs_exist() {
    let mut missing = Vec::new();
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(root().join("README.md"));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(page).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path =
                ["src/", "protocol-tests/", "bench/", "docs/", "fuzz/"].iter().any(|start| quoted.starts_with(start));
            if is_path
                && quoted.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c))
                && !root().join(quoted).exists()
            {
                missing.push(format!("{}: {quoted}", page.file_name().unwrap().to_str().unwrap()));
            }
        }
    }
    assert!(missing.is_empty(), "the docs name paths that do not exist: {missing:#?}");
}

/// Whether a word is the id of a rule or an invariant: a capital letter and one or two digits.
fn is_id(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|first| first.is_ascii_uppercase())
        && matches!(word.len(), 2 | 3)
        && chars.all(|c| c.is_ascii_digit())
}

/// The ids that are words of a sentence, such as `P3` or `F1–F9`, but not parts of other words, such as `INV-L1` or
/// `A-Z0-9`.
fn ids_in_sentence(sentence: &str) -> Vec<String> {
    let is_joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_.'".contains(c));
    let mut found = Vec::new();
    for (at, word) in words(sentence) {
        let rest = &sentence[at + word.len()..];
        let ends_sentence = rest.starts_with('.') && !is_joined(rest[1..].chars().next());
        if is_id(word)
            && !is_joined(sentence[..at].chars().next_back())
            && (ends_sentence || !is_joined(rest.chars().next()))
        {
            found.push(word.to_owned());
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// The ids at the start of a test's name: `P3` of `p3_…`, `INV-L1` of `inv_l1_…`.
fn ids_in_name(name: &str) -> Vec<String> {
    let (prefix, name) = match name.strip_prefix("inv_") {
        Some(name) => ("INV-", name),
        None => ("", name),
    };
    name.split('_').map(str::to_uppercase).take_while(|word| is_id(word)).map(|id| format!("{prefix}{id}")).collect()
}

/// Every id that a file names: rules in comments, invariants anywhere, both in the names of tests.
fn ids_in_source(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((_, comment)) = line.split_once("//") {
            found.extend(ids_in_sentence(comment));
        }
        for (at, _) in line.match_indices("INV-") {
            let id = words(&line[at + "INV-".len()..]).next().map(|(_, word)| word).filter(|word| is_id(word));
            found.extend(id.map(|id| format!("INV-{id}")));
        }
        if let Some((_, name)) = line.split_once("fn ") {
            found.extend(ids_in_name(name));
        }
    }
    found
}

/// The ids that a page explains, in bold: `**P3**` or `**INV-L1**`.
fn explained_ids(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let bold = text.split("**").skip(1).step_by(2);
    bold.filter(|word| is_id(word.trim_start_matches("INV-"))).map(str::to_owned).collect()
}

#[test]
fn every_rule_and_invariant_in_the_source_is_explained() {
    let (rules, invariants) = (explained_ids("docs/RULES.md"), explained_ids("docs/ARCHITECTURE.md"));
    assert!(rules.iter().all(|id| is_id(id)), "docs/RULES.md is about rules: {rules:?}");
    assert!(invariants.iter().all(|id| id.starts_with("INV-")), "docs/ARCHITECTURE.md: {invariants:?}");
    let mut unknown = Vec::new();
    for (path, text) in files_with_ids() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        for id in ids_in_source(&text).into_iter().chain(ids_in_name(name)) {
            if !rules.contains(&id) && !invariants.contains(&id) {
                unknown.push(format!("{}: {id}", path.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(unknown.is_empty(), "neither in docs/RULES.md nor in docs/ARCHITECTURE.md: {unknown:#?}");
}

#[test]
fn ids_are_found_where_they_are_meant() {
    let source = "//! Behavior: F1–F9, F11. As KIP-511 (INV-L1, P3): `[a-zA-Z0-9]`, a.b_c-D9, UTF8, I2.\nfn g1_g4_answers_p3() {\n\
                  assert!(x, \"INV-R3: {x}\");\nfn inv_s2_x() {}\n\"A1\"";
    let found = ids_in_source(source);
    assert_eq!(found, ["F1", "F9", "F11", "P3", "I2", "INV-L1", "G1", "G4", "INV-R3", "INV-S2"]);
}

/// The broker's source and its tests, including the scripts of group tests, whose file names begin with ids.
fn files_with_ids() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for dir in ["src", "protocol-tests/src", "protocol-tests/tests"] {
        walk(&root().join(dir), &mut files);
    }
    files.retain(|file| {
        // This file contains ids only as examples.
        !file.ends_with("src/tidy.rs")
            && file.extension().is_some_and(|extension| extension == "rs" || extension == "txt")
    });
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(&file).unwrap())).collect()
}

#[test]
fn the_longest_functions_are_printed() {
    // Never fails; prints a list to read (`cargo test longest -- --nocapture`).
    let mut lengths = Vec::new();
    for source in sources().iter().filter(|source| !is_test_only(&source.path)) {
        let mut open: Option<(usize, String, usize)> = None;
        for (number, line) in source.code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if open.is_none()
                && (line.trim_start().starts_with("fn ") || line.contains(" fn "))
                && !line.trim_start().starts_with("//")
            {
                open = Some((number, line.trim().chars().take(70).collect(), indent));
            } else if let Some((start, name, at)) = &open
                && line.starts_with(&format!("{}}}", " ".repeat(*at)))
            {
                lengths.push((number - start, format!("src/{}.rs:{} {}", source.path, start + 1, name)));
                open = None;
            }
        }
    }
    lengths.sort_by(|a, b| b.cmp(a));
    for (lines, name) in lengths.iter().take(10) {
        println!("{lines:4} {name}");
    }
}
