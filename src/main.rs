//! Runs a command; for `serve`: arguments → settings → broker → wait for a signal → shutdown.
//!
//! Exit codes: 0 when all went well, 1 when the broker (at its start, later, or while it stopped) or the health check
//! failed, 2 when the command line or the settings are wrong.

use std::{future::Future, io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use ottla::{
    broker::Broker,
    cli::{self, Command, Health, LogFormat, Serve},
    config::Settings,
    env::{
        Env,
        log_output::{self, LogOutput},
        open_files,
    },
    log::UncleanDir,
    loggers::{self, Levels, Loggers},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
/// How long the shutdown of a failed broker may take.
const FAILED_STOP_LIMIT: Duration = Duration::from_secs(10);
/// A second signal within this time belongs to the same request: terminal and supervisor may both send one.
const SAME_REQUEST: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    ottla_allocator::return_freed_memory_at_once();
    match Command::from_process() {
        Command::Serve(serve) => {
            let code = run(serve_until_signal(serve));
            log_output::flush();
            code
        }
        Command::Health(health) => run(check_health(health)),
        Command::Completions(shell) => {
            cli::write_completions(shell, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => fail(FAILED, &format!("cannot start the runtime: {error}")),
    }
}

async fn serve_until_signal(serve: Serve) -> ExitCode {
    // Created inside the runtime, so that later other threads can start tasks in it.
    let env = Env::system();
    let loggers = match start_logging(&serve) {
        Ok(loggers) => Arc::new(loggers),
        Err(error) => return fail(MISUSED, &format!("{error:#}")),
    };
    if let Err(error) = open_files::raise_limit() {
        tracing::info!(%error, "cannot raise the limit of open files");
    }
    let settings = match Settings::load(&serve.settings(), environment(), &|path| env.disk.read(path)) {
        Ok(settings) => settings,
        Err(error) => return fail(MISUSED, &format!("wrong settings:\n  {}", error.problems.join("\n  "))),
    };
    for note in &settings.notes {
        tracing::info!("{note}");
    }
    // From here on a signal causes an orderly shutdown, even during the start.
    let mut signals = match Signals::listen(&env) {
        Ok(signals) => signals,
        Err(error) => return fail(FAILED, &format!("cannot listen for signals: {error}")),
    };
    let broker = match Broker::start(settings, env.clone(), ottla::raft::open_store, loggers).await {
        Ok(broker) => broker,
        Err(error) => return fail(FAILED, &format!("{error:#}")),
    };
    log_ready(&env, &broker);
    tokio::select! {
        biased;
        () = signals.next() => {}
        reason = broker.failed() => {
            tracing::error!(reason, "the broker cannot continue and stops");
            return stop_failed(&env, broker).await;
        }
    }
    tracing::info!("shutting down; another signal after {} s stops the process at once", SAME_REQUEST.as_secs());
    let asked_at = env.clock.monotonic();
    tokio::select! {
        biased;
        unclean = broker.shutdown() => log_stopped(&unclean),
        () = signals.next_after(&env, asked_at + SAME_REQUEST) => {
            tracing::warn!("stopped at once; the next start recovers the logs");
            // Do not wait any longer for the shutdown.
            exit_now()
        }
    }
}

/// Logs the last line: whether all data is durable.
fn log_stopped(unclean: &[UncleanDir]) -> ExitCode {
    if unclean.is_empty() {
        tracing::info!("stopped, all data is on disk");
        return ExitCode::SUCCESS;
    }
    for UncleanDir { dir, error, is_synced } in unclean {
        let dir = dir.display();
        if *is_synced {
            tracing::error!(%dir, %error, "stopped; all records are on disk, but the next start has to recover the logs");
        } else {
            tracing::error!(%dir, %error, "stopped; the last records may not be on disk");
        }
    }
    ExitCode::from(FAILED)
}

/// Ends the process without waiting for its tasks.
fn exit_now() -> ! {
    log_output::flush();
    std::process::exit(FAILED.into())
}

/// Shuts down a failed broker as far as possible; gives up after `FAILED_STOP_LIMIT` if a disk does not respond.
async fn stop_failed(env: &Env, broker: Broker) -> ExitCode {
    let deadline = env.clock.sleep_until(env.clock.monotonic() + FAILED_STOP_LIMIT);
    tokio::select! {
        biased;
        unclean = broker.shutdown() => {
            log_stopped(&unclean);
            ExitCode::from(FAILED)
        }
        () = deadline => exit_now(),
    }
}

/// The signals for an orderly shutdown: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn listen(env: &Env) -> std::io::Result<Signals> {
        let hangup = if ignores_hangup(env) { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    /// Waits for the first signal at `from` or later.
    async fn next_after(&mut self, env: &Env, from: Duration) {
        loop {
            self.next().await;
            if env.clock.monotonic() >= from {
                return;
            }
            tracing::debug!("a signal repeats the request to stop");
        }
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether SIGHUP is ignored: the kernel shows ignored signals as a hexadecimal mask, of which SIGHUP is the lowest
/// bit.
fn ignores_hangup(env: &Env) -> bool {
    let status = env.disk.read(std::path::Path::new("/proc/self/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Logs the line that says that clients are served. It contains the texts that test containers of Kafka wait for:
/// "Transitioning from RECOVERY to RUNNING", "Kafka Server started", "[KafkaServer id=N] started".
fn log_ready(env: &Env, broker: &Broker) {
    let id = broker.node_id();
    let addresses: Vec<String> =
        broker.listening().iter().map(|(name, address)| format!("{name}://{address}")).collect();
    let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display().to_string();
    let dirs: Vec<String> = broker.data_dirs().iter().map(absolute).collect();
    tracing::info!(
        target: READY,
        "[KafkaServer id={id}] started (Kafka Server started, Transitioning from RECOVERY to RUNNING): \
         listening on {}, data in {}, {}, ready after {:.1} ms",
        addresses.join(","),
        dirs.join(","),
        broker.found(),
        env.clock.monotonic().as_secs_f64() * 1e3
    );
}

/// Target of the line that is logged with any filter, since programs wait for it.
const READY: &str = "ottla::ready";

/// Starts logging with the filter of the command line. Requests can change it through the returned loggers.
fn start_logging(serve: &Serve) -> anyhow::Result<Loggers> {
    let given: Targets = serve.log_filter.parse().with_context(|| format!("--log {}", serve.log_filter))?;
    let mut levels: Levels = given.iter().map(|(target, level)| (loggers::name_of(target), level.into())).collect();
    levels.insert(loggers::ROOT.to_owned(), given.default_level().unwrap_or(LevelFilter::OFF).into());
    let (filter, handle) = reload::Layer::new(Targets::new());
    let loggers = Loggers::new(levels, move |levels| {
        // The subscriber lives as long as the process.
        let _ = handle.reload(filter_of(levels));
    });
    loggers.change(&[]);
    let output = LogOutput::start().context("cannot start logging")?;
    // Not to standard error: if nobody reads it, a panicking thread must not block.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(move || output.clone());
    match serve.log_format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            log.with(lines.with_ansi(std::io::stdout().is_terminal())).init();
        }
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Ok(loggers)
}

/// Makes the filter for `levels`. It contains every logger, so that none gets the level of another one whose name is a
/// prefix of its own.
fn filter_of(levels: &Levels) -> Targets {
    let root = levels.get(loggers::ROOT).map_or(LevelFilter::OFF, |level| level.filter());
    let named = levels.iter().filter(|(name, _)| *name != loggers::ROOT);
    let targets = named.map(|(name, level)| (loggers::target_of(name), level.filter()));
    Targets::new().with_default(root).with_targets(targets).with_target(READY, LevelFilter::INFO)
}

async fn check_health(health: Health) -> ExitCode {
    match cli::health::check(&Env::system(), &health, environment()).await {
        Ok(answer) => {
            // If the reader has closed its end, the answer is not needed.
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(FAILED, &format!("{error:#}")),
    }
}

/// The environment's variables, without those that are not UTF-8, which no setting is.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ottla: {message}");
    ExitCode::from(code)
}
