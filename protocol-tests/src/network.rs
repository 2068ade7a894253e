//! Hosts with a network of their own: namespaces on one bridge. Any host can be cut off from any other, also in one
//! direction only; cut packets are lost silently. The clients of the test are a host, too. Knows nothing about brokers.
//!
//! All of it exists in namespaces that [`alone`] makes for one run, so nothing remains after it.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use crate::foreign::succeed;

/// The host of the test and its clients; brokers have smaller numbers.
pub const CLIENTS: i32 = 254;
/// No host has this address, so frames to it are lost.
const NOWHERE: &str = "02:00:00:00:ff:ff";

/// Runs the ignored test `name` of this binary in namespaces of its own, and passes its output on.
pub fn run_alone(name: &str) {
    let mut command = alone();
    command.args([name, "--exact", "--ignored", "--nocapture"]);
    command.env("OTTLA_BIN", crate::broker::binary());
    println!("{}", succeed(command, name));
}

/// A command that runs this program in network, mount and process namespaces of its own. When it ends, all its processes
/// end. Root needs no user namespace for that, others do.
pub fn alone() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // Files in /proc belong to root only if this user is root.
    if !is_root() {
        command.arg("--map-root-user");
    }
    // `ip netns` keeps its files in /run.
    command.args(["--", "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().expect("path of this program"));
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().expect("read /proc/self").uid() == 0
}

/// See the head of the file.
pub struct Network {
    hosts: Vec<i32>,
}

impl Network {
    /// Connects these hosts and the clients. Must run in namespaces of its own.
    pub fn create(hosts: &[i32]) -> Network {
        ip("link set lo up");
        ip(&format!("link add bridge address {} type bridge", hardware(CLIENTS)));
        ip("link set bridge up");
        ip(&format!("address add {}/24 dev bridge", Network::address(CLIENTS)));
        for host in hosts {
            let name = namespace(*host);
            ip(&format!("netns add {name}"));
            ip(&format!("link add port{host} type veth peer name eth0 address {} netns {name}", hardware(*host)));
            ip(&format!("link set port{host} master bridge up"));
            ip(&format!("-netns {name} link set lo up"));
            ip(&format!("-netns {name} link set eth0 up"));
            ip(&format!("-netns {name} address add {}/24 dev eth0", Network::address(*host)));
        }
        let network = Network { hosts: hosts.iter().copied().chain([CLIENTS]).collect() };
        network.heal();
        network
    }

    pub fn address(host: i32) -> String {
        Network::ip(host).to_string()
    }

    pub fn ip(host: i32) -> Ipv4Addr {
        Ipv4Addr::new(10, 81, 0, host as u8)
    }

    /// The same command on this host.
    pub fn on_host(host: i32, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &namespace(host)]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
    }

    /// From now on, packets from one host to the other are lost.
    pub fn cut(&self, from: i32, to: i32) {
        neighbour(from, to, NOWHERE);
    }

    /// From now on, no packet is lost.
    pub fn heal(&self) {
        for from in &self.hosts {
            for to in self.hosts.iter().filter(|to| *to != from) {
                neighbour(*from, *to, &hardware(*to));
            }
        }
    }
}

fn namespace(host: i32) -> String {
    format!("host{host}")
}

fn hardware(host: i32) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

/// Makes `from` send its packets for `to` to this hardware address. Entries are permanent, so no host asks for addresses.
fn neighbour(from: i32, to: i32, hardware: &str) {
    let (place, device) =
        if from == CLIENTS { (String::new(), "bridge") } else { (format!("-netns {} ", namespace(from)), "eth0") };
    ip(&format!("{place}neighbour replace {} lladdr {hardware} nud permanent dev {device}", Network::address(to)));
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    succeed(command, "set up the network");
}
