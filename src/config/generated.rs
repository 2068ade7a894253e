//! Generates config.toml and docs/generated/configs.md from the tables. Tests check that both files are current;
//! `UPDATE=1 cargo test --lib config::generated` rewrites them.

use std::{fmt::Write, path::Path};

use super::{
    accepted, broker,
    group::{CLIENT_METRICS, GROUP},
    table::{Default, Definition, Effect},
    topic,
    value::ConfigType,
    *,
};

const HEAD: &str = "\
# Ottla's settings: all of them, each commented out and with its default.
#
# Names, types and meaning are Apache Kafka's. Dots may be tables: log.roll.hours is `hours` in
# [log.roll]. Four names are a setting and the beginning of others at once; they are quoted here
# and must stay so. This file is written from the tables in src/config.
";

/// The broker's settings in the order of the files, without those that Kafka does not document.
fn broker_rows() -> impl Iterator<Item = &'static Definition> {
    let tables = [broker::FIELDS, broker::TOPIC_DEFAULTS].into_iter().chain(accepted::GROUPS.iter().copied());
    tables.flatten().filter(|row| !row.internal)
}

fn config_toml() -> String {
    let mut file = HEAD.to_owned();
    let mut section = "";
    for row in broker_rows() {
        if row.section != section {
            section = row.section;
            let rule = "-".repeat(90 - section.len());
            write!(file, "\n# ---- {section} {rule}\n").expect("a String cannot fail");
            match row.effect {
                Effect::None(reason) => writeln!(file, "# Without effect: {reason}.").expect("a String cannot fail"),
                Effect::Refused(reason) => writeln!(file, "# Refused: {reason}.").expect("a String cannot fail"),
                Effect::Used | Effect::TopicDefault => {}
            }
        }
        write!(file, "\n{}", comment(&describe(row))).expect("a String cannot fail");
        writeln!(file, "{}", assignment(row)).expect("a String cannot fail");
    }
    file
}

fn describe(row: &Definition) -> String {
    let mut text = row.doc.to_owned();
    if let Some(deviation) = row.deviation {
        text = format!("{text} ({deviation})");
    }
    text
}

/// Makes a comment that is wrapped at about 100 columns.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + word.len() > 98 {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

fn assignment(row: &Definition) -> String {
    let is_also_a_table =
        broker_settings().keys().any(|name| name.strip_prefix(row.name).is_some_and(|rest| rest.starts_with('.')));
    let key = if is_also_a_table { format!("{:?}", row.name) } else { row.name.to_owned() };
    match row.default {
        Default::Null => format!("#{key} = \"\" # not set"),
        Default::Text(text) => format!("#{key} = {}", toml_value(row.value_type, text)),
    }
}

fn toml_value(value_type: ConfigType, text: &str) -> String {
    match value_type {
        ConfigType::Boolean | ConfigType::Int | ConfigType::Short | ConfigType::Long | ConfigType::Double => {
            text.to_owned()
        }
        ConfigType::List => format!("{:?}", super::value::split_list(text)),
        ConfigType::String | ConfigType::Class | ConfigType::Password => format!("{text:?}"),
    }
}

fn docs() -> String {
    let mut page = String::from(
        "# Settings\n\nWritten from the tables in src/config by `UPDATE=1 cargo test --lib config::generated`. Names, types,\n\
         defaults and meaning are those of Apache Kafka 4.3.1; where a default differs, its row says why.\n\
         How they are given: config.toml, a server.properties file, `KAFKA_…` variables, `--set`; later ones win.\n",
    );
    let tables: [(&str, Vec<&Definition>); 4] = [
        ("Broker", broker_rows().collect()),
        ("Topics", topic::FIELDS.iter().chain(topic::ACCEPTED).filter(|row| !row.internal).collect()),
        ("Groups", GROUP.iter().collect()),
        ("Client metrics", CLIENT_METRICS.iter().collect()),
    ];
    for (title, rows) in tables {
        write!(page, "\n## {title}\n").expect("a String cannot fail");
        let mut section = ("", Effect::Used);
        for row in rows {
            if (row.section, row.effect) != section {
                section = (row.section, row.effect);
                write!(page, "\n### {}\n\n", heading(row)).expect("a String cannot fail");
                page.push_str("| Setting | Type | Default | Valid values | Update | |\n|---|---|---|---|---|---|\n");
            }
            page.push_str(&table_line(row, title == "Broker"));
        }
    }
    page
}

fn heading(row: &Definition) -> String {
    match row.effect {
        Effect::Used | Effect::TopicDefault => row.section.to_owned(),
        Effect::None(reason) => format!("{} (without effect: {reason})", row.section),
        Effect::Refused(reason) => format!("{} ({reason})", row.section),
    }
}

fn table_line(row: &Definition, is_broker: bool) -> String {
    let default = match row.default {
        Default::Null => "not set".to_owned(),
        Default::Text("") => "empty".to_owned(),
        Default::Text(text) => format!("`{text}`"),
    };
    let mut text = row.doc.to_owned();
    if !row.synonyms.is_empty() {
        let names: Vec<String> = row.synonyms.iter().map(|synonym| format!("`{}`", synonym.name)).collect();
        text = format!("{text} Where not set: {}.", names.join(", "));
    }
    if let Some(deviation) = row.deviation {
        text = format!("{text} *Deviation: {deviation}*");
    }
    let update = if is_broker { row.update.to_string() } else { String::new() };
    let value_type = row.value_type.to_string().to_lowercase();
    let bounds = row.validator.to_string();
    format!("| `{}` | {value_type} | {default} | {bounds} | {update} | {text} |\n", row.name)
}

/// Checks that a file of the repository has the given content, or writes it if `UPDATE` is set.
fn assert_current(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("make the directory");
        std::fs::write(&path, wanted).expect("write the file");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{file} is not current: run UPDATE=1 cargo test --lib config::generated");
}

#[test]
fn config_toml_is_current() {
    assert_current("config.toml", &config_toml());
}

#[test]
fn the_docs_are_current() {
    assert_current("docs/generated/configs.md", &docs());
}

#[test]
fn config_toml_says_the_defaults() {
    let read = |text: String| {
        Settings::load(&Arguments::default(), [], &|_: &Path| Ok(text.clone().into_bytes()))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let as_it_is = read(config_toml());
    assert_eq!(as_it_is.statics.iter().count(), 0, "every line is commented out");
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with("# not set");
    let active: Vec<String> = config_toml()
        .lines()
        .filter(is_setting)
        .map(|line| line[1..].to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    assert!(active.len() > 250, "{}", active.len());
    let settings = read(active.join("\n"));
    assert_eq!(settings.broker, BrokerConfig::default());
    assert_eq!(settings.log, LogConfig::default());
    for (name, given) in settings.statics.iter() {
        let row = broker_settings()[name];
        let value = row.parse(&given.text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Some(value), row.default_value(), "{name}");
    }
    assert_eq!(settings.notes, [""; 0]);
}
