//! The black-box tests, in one binary. They run in parallel, each against its own broker.

mod bombs;
mod bounds;
mod cli;
mod clients_go;
mod clients_js;
mod clients_python;
mod crash;
mod differential;
mod dynamic_settings;
mod full_disk;
mod hostile;
mod instructions;
mod java_clients;
mod kafka_files;
mod kcat;
mod lifecycle;
mod log_output;
mod loggers;
mod many_partitions;
mod metrics;
mod open_files;
mod rdkafka_admin;
mod rdkafka_groups;
mod rdkafka_produce;
mod starts;
mod suites;
