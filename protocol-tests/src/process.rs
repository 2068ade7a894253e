//! Child processes: starts them, collects their output line by line, signals them, waits with a deadline, and reads
//! their memory and CPU time from /proc. Knows nothing about brokers.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A started program and its output so far.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// Threads that read the program's output to its end.
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    grew: Condvar,
}

impl Process {
    /// Starts `command`; standard output and standard error are collected, together, in the order of arrival.
    pub fn start(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = Arc::new(Output::default());
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), output.clone()),
            collect(child.stderr.take().expect("stderr is piped"), output.clone()),
        ];
        Process { child, output, readers, status: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines printed so far; complete once a method of this type has seen the program end.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().expect("output lock").clone()
    }

    /// The number of lines with this text printed so far.
    pub fn count_lines_with(&self, text: &str) -> usize {
        self.output.lines.lock().expect("output lock").iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for the first line that `wanted` accepts; returns None if the program ends or `limit` passes before.
    pub fn wait_for_line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        loop {
            let ended = self.try_wait().is_some();
            let mut lines = self.output.lines.lock().expect("output lock");
            if let Some(line) = lines[seen..].iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            if ended || Instant::now() >= deadline {
                return None;
            }
            seen = lines.len();
            // The reader notifies for each line; the short timeout detects a program that ended without output.
            lines = self.output.grew.wait_timeout(lines, Duration::from_millis(20)).expect("output lock").0;
            drop(lines);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none()
            && let Some(status) = self.child.try_wait().expect("wait for child")
        {
            self.ended(status);
        }
        self.status
    }

    /// The pipes end with the program, so this reads the rest of the output.
    fn ended(&mut self, status: ExitStatus) {
        for reader in self.readers.drain(..) {
            reader.join().expect("read the program's output");
        }
        self.status = Some(status);
    }

    /// Waits for the end and returns the exit status; panics if the program still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} still runs after {limit:?}", self.id());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal by its name (`TERM`, `KILL`, `STOP`, `CONT`) to this process only.
    pub fn signal(&mut self, name: &str) {
        if self.is_running() {
            let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
            assert!(sent.expect("run kill").success() || !self.is_running(), "kill -{name} {}", self.id());
        }
    }

    /// Sends SIGKILL and waits until the process has ended.
    pub fn kill(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let status = self.child.wait().expect("wait for killed child");
            self.ended(status);
        }
    }

    /// Waits until every thread of the program sleeps, so that all its work is done.
    pub fn wait_until_asleep(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.is_asleep() {
            assert!(self.is_running(), "the program has ended");
            assert!(Instant::now() < deadline, "process {} is still busy after {limit:?}", self.id());
            std::thread::yield_now();
        }
    }

    fn is_asleep(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("list the threads");
        threads.flatten().all(|thread| {
            // If the file cannot be read, the thread has ended and is not busy.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, fields)| fields.starts_with(" S"))
        })
    }

    /// User and system CPU time so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.id())
    }

    /// A field of /proc/PID/status that counts kB, such as `VmRSS` or `VmHWM`, in bytes.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        memory_bytes(self.id(), field)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Output>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            output.lines.lock().expect("output lock").push(String::from_utf8_lossy(&line).into_owned());
            output.grew.notify_all();
        }
    })
}

/// User and system CPU time of a process so far.
pub fn cpu_time(process_id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).expect("read /proc/PID/stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("command name").1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux
}

/// A field of /proc/PID/status of a process, see [`Process::memory_bytes`].
pub fn memory_bytes(process_id: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).expect("read /proc/PID/status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("field of status");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

/// Calls `condition` again and again until it returns a value; panics with `what` after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    poll(limit, condition).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}

/// Calls `condition` again and again until it returns a value. Returns `None` after `limit`.
pub fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= deadline {
            return value;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP port of 127.0.0.1 that nobody listens at and that nobody else in this process is given. It lies below the ports
/// that the kernel gives to outgoing connections, for such a port may be taken before the server under test binds it.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("read the kernel's range");
    let end = range.split_whitespace().next().and_then(|port| port.parse::<u32>().ok()).expect("a port");
    assert!(end > FIRST + 1000, "the kernel gives ports from {end} on to outgoing connections");
    // Test runs beside each other begin at different ports.
    let begin = std::process::id().wrapping_mul(7919);
    for _ in FIRST..end {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + next % (end - FIRST)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST} to {end} is free");
}
