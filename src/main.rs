//! Arguments → settings → broker → wait for a signal → shutdown.
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

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
/// How long a broker that has failed may take to end.
const FAILED_STOP_LIMIT: Duration = Duration::from_secs(10);
/// A signal so soon after the first is the same request: a terminal and a supervisor both deliver it.
const SAME_REQUEST: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
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
    // Made on the runtime: its tasks may be started from threads of our own later.
    let env = Env::system();
    let loggers = match start_logging(&serve) {
        Ok(loggers) => Arc::new(loggers),
        Err(error) => return fail(MISUSED, &format!("{error:#}")),
    };
    if let Err(error) = open_files::raise_limit() {
        tracing::info!(%error, "the limit of open files stays as it is");
    }
    let settings = match Settings::load(&serve.settings(), environment(), &|path| env.disk.read(path)) {
        Ok(settings) => settings,
        Err(error) => return fail(MISUSED, &format!("wrong settings:\n  {}", error.problems.join("\n  "))),
    };
    for note in &settings.notes {
        tracing::info!("{note}");
    }
    // From here on a signal stops the broker in order, even one that comes while it starts.
    let mut signals = match Signals::listen(&env) {
        Ok(signals) => signals,
        Err(error) => return fail(FAILED, &format!("cannot listen for signals: {error}")),
    };
    let broker = match Broker::start(settings, env.clone(), ottla::raft::open_store, loggers).await {
        Ok(broker) => broker,
        Err(error) => return fail(FAILED, &format!("{error:#}")),
    };
    tell_ready(&env, &broker);
    tokio::select! {
        () = signals.next() => {}
        reason = broker.failed() => {
            tracing::error!(reason, "the broker cannot go on and stops");
            return stop_failed(&env, broker).await;
        }
    }
    tracing::info!("shutting down; another signal, {} s from now or later, stops at once", SAME_REQUEST.as_secs());
    let asked_at = env.clock.monotonic();
    tokio::select! {
        unclean = broker.shutdown() => tell_stopped(&unclean),
        () = signals.next_after(&env, asked_at + SAME_REQUEST) => {
            tracing::warn!("stopped at once, the next start recovers the logs");
            // What the shutdown waits for is not waited for any longer.
            exit_now()
        }
    }
}

/// The last line: whether the next start finds everything.
fn tell_stopped(unclean: &[UncleanDir]) -> ExitCode {
    if unclean.is_empty() {
        tracing::info!("stopped, all data is on disk");
        return ExitCode::SUCCESS;
    }
    for UncleanDir { dir, error, is_synced } in unclean {
        let dir = dir.display();
        if *is_synced {
            tracing::error!(%dir, %error, "stopped; all records are on disk, but the next start has to recover the logs");
        } else {
            tracing::error!(%dir, %error, "stopped; what was written last may not be on disk");
        }
    }
    ExitCode::from(FAILED)
}

/// Ends the process without waiting for its tasks.
fn exit_now() -> ! {
    log_output::flush();
    std::process::exit(FAILED.into())
}

/// Ends connections and logs as far as that is still possible; a disk that does not answer is not waited for.
async fn stop_failed(env: &Env, broker: Broker) -> ExitCode {
    let deadline = env.clock.sleep_until(env.clock.monotonic() + FAILED_STOP_LIMIT);
    tokio::select! {
        unclean = broker.shutdown() => {
            tell_stopped(&unclean);
            ExitCode::from(FAILED)
        }
        () = deadline => exit_now(),
    }
}

/// What ends the broker in order: SIGTERM, SIGINT, and the end of the terminal it was started from, unless that was to
/// be ignored (nohup).
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

    /// The first signal that comes at `from` or later.
    async fn next_after(&mut self, env: &Env, from: Duration) {
        loop {
            self.next().await;
            if env.clock.monotonic() >= from {
                return;
            }
            tracing::debug!("a signal that repeats the request to stop");
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
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// The kernel tells which signals are ignored as a hexadecimal mask; SIGHUP is the first.
fn ignores_hangup(env: &Env) -> bool {
    let status = env.disk.read(std::path::Path::new("/proc/self/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The line that says that clients are served. It holds the texts that test containers of Kafka
/// wait for: "Transitioning from RECOVERY to RUNNING", "Kafka Server started", "[KafkaServer id=N] started".
fn tell_ready(env: &Env, broker: &Broker) {
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

/// Logged whatever the filter says, since programs wait for it.
const READY: &str = "ottla::ready";

/// Starts the output of log lines with the filter of the command line. Requests change it through the loggers.
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
    // A reader of standard error that has stopped reading must not hold up whoever panics.
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

/// Every logger is named, so that none takes the level of another whose name only begins the same.
fn filter_of(levels: &Levels) -> Targets {
    let root = levels.get(loggers::ROOT).map_or(LevelFilter::OFF, |level| level.filter());
    let named = levels.iter().filter(|(name, _)| *name != loggers::ROOT);
    let targets = named.map(|(name, level)| (loggers::target_of(name), level.filter()));
    Targets::new().with_default(root).with_targets(targets).with_target(READY, LevelFilter::INFO)
}

async fn check_health(health: Health) -> ExitCode {
    match cli::health::check(&Env::system(), &health, environment()).await {
        Ok(answer) => {
            // A reader that has closed its end knows already whether it wanted the answer.
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
