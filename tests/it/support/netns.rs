//! Network namespaces, in which a peer can disappear silently: its link is taken down. A namespace lives as
//! long as a helper process in it, which waits on a pipe from here, so nothing is left even if the test is
//! killed. Needs root.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::Process;
use super::{DEADLINE, wait_until};

/// A network namespace.
pub(crate) struct Netns {
    process: Process,
}

/// Name of the link's end in each namespace.
pub(crate) const CABLE: &str = "v0";

impl Netns {
    /// Creates a namespace with loopback only. The error gives the reason, usually that it needs root.
    fn new() -> Result<Netns, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let ours = fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let path = format!("/proc/{}/ns/net", process.id());
        wait_until(DEADLINE, "a network namespace", || {
            !process.is_running() || fs::read_link(&path).is_ok_and(|theirs| theirs != ours)
        });
        if !process.is_running() {
            return Err(process.stderr());
        }
        let netns = Netns { process };
        netns.try_ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Creates two namespaces with a link (veth) between them, and one IPv4 address each.
    #[track_caller]
    pub(crate) fn pair(addrs: [&str; 2]) -> [Netns; 2] {
        Netns::try_pair(addrs).unwrap_or_else(|reason| panic!("no network namespaces: {reason}"))
    }

    /// Like `pair`, for a test that can do without namespaces.
    pub(crate) fn try_pair(addrs: [&str; 2]) -> Result<[Netns; 2], String> {
        let pair = [Netns::new()?, Netns::new()?];
        let peer = pair[1].process.id().to_string();
        pair[0].try_ip(&["link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", &peer])?;
        for (netns, addr) in pair.iter().zip(addrs) {
            netns.try_ip(&["address", "add", &format!("{addr}/24"), "dev", CABLE])?;
            netns.try_ip(&["link", "set", CABLE, "up"])?;
        }
        Ok(pair)
    }

    /// Takes this end of the link down.
    #[track_caller]
    pub(crate) fn cut(&self) {
        self.ip(&["link", "set", CABLE, "down"]);
    }

    /// Runs `act` in a thread of the namespace. Sockets and processes that it creates belong to the
    /// namespace.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        let done = thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            };
            scope.spawn(inside).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    #[track_caller]
    fn ip(&self, args: &[&str]) {
        self.try_ip(args).unwrap_or_else(|reason| panic!("{reason}"));
    }

    fn try_ip(&self, args: &[&str]) -> Result<(), String> {
        let output = self.run(|| Command::new("ip").args(args).output());
        let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
