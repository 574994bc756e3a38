//! Finds the process that listens on a port, for error messages. Linux only: reads /proc/net and /proc/*/fd as far as
//! permissions allow.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::Error;

/// State LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortHolder {
    pid: u32,
    program: String,
}

/// Transport protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Wraps an error of `bind` or `listen`: `.map_err(listen_error(Transport::Tcp, addr))`. Says which process has the port, or
/// what a low port needs.
pub(crate) fn listen_error(transport: Transport, addr: SocketAddr) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => match find(transport, addr) {
                Some(PortHolder { pid, program }) => format!("; {program} (process {pid}) uses this port"),
                None => "; is another lea running?".to_owned(),
            },
            io::ErrorKind::PermissionDenied if addr.port() < 1024 => {
                "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address".to_owned(),
            _ => return Error::net("listen on", addr)(error),
        };
        Error::net("listen on", addr)(io::Error::new(error.kind(), format!("{error}{hint}")))
    }
}

/// Returns the process that listens on the port of an address, if it can be read.
fn find(transport: Transport, addr: SocketAddr) -> Option<PortHolder> {
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let read = |table: &&str| fs::read_to_string(table).unwrap_or_default();
    let inodes: Vec<String> =
        tables.iter().map(read).flat_map(|table| inodes(&table, transport, addr.port())).collect();
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path(), &links).then(|| PortHolder { pid, program: program(&entry.path()) })
    })
}

/// Returns the inodes of the sockets in a table of /proc/net that listen on a port.
fn inodes(table: &str, transport: Transport, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let listens = transport == Transport::Udp || state == LISTEN;
        (listens && local.ends_with(&suffix)).then(|| fields.nth(5).map(str::to_owned))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Returns true if a process has a descriptor of one of the sockets.
fn holds(process: &Path, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == OsStr::new(link)))
}

fn program(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim_end().escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_listening_process_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let found = find(Transport::Tcp, tcp.local_addr().unwrap()).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.program.is_empty());
        assert_eq!(find(Transport::Udp, udp.local_addr().unwrap()).unwrap().pid, std::process::id());
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:138C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n\
             1: 0100007F:138C 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n\
             2: 0100007F:138D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n\
             3: short\n";
        assert_eq!(inodes(table, Transport::Tcp, 5004), ["111"]);
        assert_eq!(inodes(table, Transport::Udp, 5005), ["333"]);
        assert!(inodes(table, Transport::Tcp, 1).is_empty());
    }
}
