//! `--connect`: captures are fetched from sensors that serve them without a name.

use std::net::TcpListener;

use super::*;

/// A server that fetches from a sensor, and listens on no port.
fn start(target: &str, flags: &[&str]) -> (Workdir, Process) {
    let work = Workdir::new();
    let mut command = std::process::Command::new(lea());
    command.args(["serve-tcp", "--connect", target, "--output"]).arg(work.join("out")).args(flags);
    let process = Process::start(&mut command);
    (work, process)
}

/// Serves one capture to the next peer.
fn serve(sensor: &TcpListener, content: &[u8]) {
    let (mut peer, _) = sensor.accept().unwrap();
    peer.write_all(content).unwrap();
}

fn files(output: &Path) -> Vec<String> {
    let names = fs::read_dir(output).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".pcap"));
    names.sort();
    names
}

#[test]
fn captures_are_fetched_from_a_sensor_again_and_again() {
    let sensor = TcpListener::bind("127.0.0.1:0").unwrap();
    let (work, mut process) = start(&sensor.local_addr().unwrap().to_string(), &[]);
    let output = work.join("out");
    for count in 1..=2 {
        serve(&sensor, &capture());
        wait_until(DEADLINE, &format!("capture {count}"), || {
            let files = files(&output);
            files.len() == count
                && files.iter().all(|file| {
                    manifest(&output, file).is_some_and(|manifest| manifest.state == ManifestState::Closed)
                })
        });
    }
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    assert!(!process.stderr().contains("listening"), "{}", process.stderr());
    for file in files(&output) {
        assert!(file.starts_with("127.0.0.1-20"), "{file}");
        assert_whole(&output, &file, &capture());
    }
}

#[test]
fn a_sensor_that_is_not_there_is_tried_again() {
    // The port is free now, and was this test's a moment ago.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (work, mut process) = start(&addr.to_string(), &["--unnamed", "sensor.pcap"]);
    process.wait_line(DEADLINE, "a failed attempt", |line| line.contains("sensor_unreachable").then_some(()));
    let sensor = TcpListener::bind(addr).unwrap();
    serve(&sensor, &capture());
    wait_closed(&work.join("out"), "sensor.pcap");
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    assert!(process.stderr().contains("sensor_connected"), "{}", process.stderr());
    assert_whole(&work.join("out"), "sensor.pcap", &capture());
}

#[test]
fn a_shutdown_does_not_wait_for_a_sensor() {
    let sensor = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_work, mut process) = start(&sensor.local_addr().unwrap().to_string(), &[]);
    let (_silent, _) = sensor.accept().unwrap();
    process.wait_line(DEADLINE, "the connection", |line| line.contains("sensor_connected").then_some(()));
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
}

/// A configuration with events and no TCP listener opens no port for streams.
#[test]
fn events_alone_open_no_port_for_streams() {
    let work = Workdir::new();
    let config = work.join("lea.conf");
    fs::write(&config, r#"{"parameters": {"loggerLevel": "INFO", "events": {"lines": "127.0.0.1:0"}}}"#)
        .unwrap();
    let mut command = std::process::Command::new(lea());
    command.arg("run").arg("--config").arg(&config).arg("--output").arg(work.join("out"));
    let mut process = Process::start(&mut command);
    // Events are started after streams.
    process.wait_line(DEADLINE, "the listener", |line| line.ends_with("listener=lines").then_some(()));
    assert!(!process.stderr().contains("listener=tcp"), "{}", process.stderr());
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    let (code, text) = run(&["configure", "--check"], &config);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("OK: TCP off; Kafka off; events on lines"), "{text}");
}
