//! Events and streams on one disk: events do not use up the room that is kept for streams.

use super::*;
use crate::support::Events;
use crate::support::tmpfs::Tmpfs;

const MIB: u64 = 1 << 20;

#[test]
fn events_leave_room_for_streams() {
    let work = Workdir::new();
    let disk = Tmpfs::mount(&work, 32 * MIB);
    let output = disk.join("out");
    let flags = ["--reserve-disk", "4M", "--admin-listen", "127.0.0.1:0", "--content-lines", "0"];
    let mut events = Events::start(&output, &flags);
    let admin = events.addr("admin");
    let content_lines = events.addr("content-lines");
    let post = || events.post("/calls/_doc", r#"{"event":"start_call"}"#);
    assert_eq!(post()["result"], "created");
    // Between the room for streams and twice of it.
    disk.fill(6 * MIB);
    let refused = post();
    assert_eq!(
        (&refused["status"], &refused["error"]["type"]),
        (&429.into(), &"es_rejected_execution_exception".into())
    );
    assert_eq!(status::health(admin), "store_disk_full");
    // A stream is stored.
    let line = r#"{"userid":"+447700900123","interceptionfilename":"v","data":"AAAA"}"#;
    let mut sender = TcpStream::connect(content_lines).unwrap();
    writeln!(sender, "{line}").unwrap();
    drop(sender);
    wait_closed(&output, "v");
    disk.free();
    wait_until(DEADLINE, "health ok", || status::health(admin) == "ok");
    assert_eq!(post()["result"], "created");
    let stderr = events.term();
    assert!(stderr.contains("store_disk_full reserved_bytes=8388608"), "{stderr}");
}
