//! `lea configure`, `scripts/configure.sh` and `scripts/install.sh`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

const LEA: &str = env!("CARGO_BIN_EXE_lea");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONF: &str = "config/configurationFile.conf";
const VARIABLES: [&str; 6] =
    ["LOGGERLEVEL", "TCPSERVERADDRESS", "TCPSERVERPORT", "KAFKAADDRESS", "KAFKAPORT", "KAFKATOPIC"];

/// A working directory for `lea`, without any of its environment variables.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config")).unwrap();
        Site { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> &Site {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text(CONF)).unwrap()
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.dir.path());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    fn configure(&self, args: &[&str]) -> Command {
        let mut command = self.command(LEA);
        command.arg("configure").args(args);
        command
    }

    /// Lists config/, to check that no other file is left there.
    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("config")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stderr).unwrap()
}

fn configuration(level: &str, tcp: (&str, u16), kafka: (&str, u16, &str)) -> Value {
    json!({ "parameters": {
        "loggerLevel": level,
        "tcpServer": { "address": tcp.0, "port": tcp.1 },
        "kafkaServer": { "address": kafka.0, "port": kafka.1, "topic": kafka.2 },
    } })
}

#[test]
fn without_flags_the_shipped_configuration_is_written() {
    let site = Site::new();
    site.configure(&[]).assert().code(0);
    let shipped = fs::read_to_string(Path::new(ROOT).join(CONF)).unwrap();
    assert_eq!(site.text(CONF), shipped);
    assert_eq!(site.json(), configuration("DEBUG", ("0.0.0.0", 5004), ("", 5002, "interception")));
}

#[test]
fn original_command_lines_work_unchanged() {
    let expected = configuration("INFO", ("127.0.0.1", 6004), ("10.0.0.1", 9092, "interception_data"));
    let short = "-d INFO -t 127.0.0.1 -u 6004 -g 10.0.0.1 -k 9092 -w interception_data";
    let long = "--logger-level info --tcp-address 127.0.0.1 --tcp-port 6004 --kafka-address 10.0.0.1 \
                --kafka-port 9092 --kafka-topic interception_data";
    for line in [
        short.to_owned(),
        long.to_owned(),
        format!("{short} -i x -p 5 -b -1 -e e -f f"),
        format!("-i -p -b x {short} -i again"),
        format!("-u 1 -w t {short}"),
        short.replace(' ', "").replace('-', " -"),
    ] {
        let site = Site::new();
        site.configure(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>()).assert().code(0);
        assert_eq!(site.json(), expected, "{line}");
    }
    for (flag, path, text) in [
        ("-d", "/parameters/loggerLevel", json!("ERROR")),
        ("-t", "/parameters/tcpServer/address", json!("::1")),
        ("-u", "/parameters/tcpServer/port", json!(1)),
        ("-g", "/parameters/kafkaServer/address", json!("broker-1.example")),
        ("-k", "/parameters/kafkaServer/port", json!(2)),
        ("-w", "/parameters/kafkaServer/topic", json!("t")),
    ] {
        let site = Site::new();
        let word = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        site.configure(&[flag, &word]).assert().code(0);
        let mut expected = configuration("DEBUG", ("0.0.0.0", 5004), ("", 5002, "interception"));
        *expected.pointer_mut(path).unwrap() = text;
        assert_eq!(site.json(), expected, "{flag}");
    }
    let help = Site::new().configure(&["-h"]).assert().code(0).get_output().stdout.clone();
    assert!(String::from_utf8(help).unwrap().contains("--kafka-topic"));
}

#[test]
fn flags_override_variables() {
    let site = Site::new();
    let texts = ["WARN", "::", "1", "broker", "2", "t"];
    site.configure(&[]).envs(VARIABLES.into_iter().zip(texts)).assert().code(0);
    assert_eq!(site.json(), configuration("WARN", ("::", 1), ("broker", 2, "t")));
    site.configure(&["-u", "3", "-g", ""]).envs(VARIABLES.into_iter().zip(texts)).assert().code(0);
    assert_eq!(site.json(), configuration("WARN", ("::", 3), ("", 2, "t")));
    // A container may pass on variables that are not set. An empty variable counts as unset, except for an address.
    let site = Site::new();
    site.configure(&[]).envs(VARIABLES.map(|variable| (variable, ""))).assert().code(0);
    assert_eq!(site.json(), configuration("DEBUG", ("", 5004), ("", 5002, "interception")));
}

#[test]
fn an_invalid_value_leaves_the_old_file_unchanged() {
    let site = Site::new();
    site.put(CONF, "left\r\nalone, \u{feff} whatever it is");
    let old = site.text(CONF);
    for args in [
        ["-u", "65536"],
        ["-u", "-1"],
        ["-u", ""],
        ["-u", "5004x"],
        ["-k", "70000"],
        ["-d", "LOUD"],
        ["-d", ""],
        ["-t", "300.1.1.1"],
        ["-t", "10.0.0.1:5004"],
        ["-g", "a b"],
        ["-g", "a\",\"port\":1,\"x\":\""],
        ["-w", "a/b"],
        ["-x", "1"],
        ["--template", "missing.conf"],
    ] {
        let output = site.configure(&args).assert().code(2).get_output().clone();
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
        assert_eq!(site.text(CONF), old, "{args:?}");
    }
    site.put("t.conf", fs::read(Path::new(ROOT).join("config/base.conf")).unwrap());
    let mut by_variable = site.configure(&["--template", "t.conf"]);
    let said = stderr(by_variable.env("KAFKAPORT", "nine"));
    assert_eq!(
        said,
        "lea: environment variable KAFKAPORT: parameters.kafkaServer.port: \"nine\" is not a port (expected a number \
         from 1 to 65535, or 0 for off)\n"
    );
    assert_eq!(site.text(CONF), old);
    assert_eq!(site.listing(), ["configurationFile.conf"]);
    for port in ["0", "1", "65535", "05004"] {
        site.configure(&["-u", port, "--template", "t.conf"]).assert().code(0);
        assert_eq!(site.json()["parameters"]["tcpServer"]["port"], port.parse::<u16>().unwrap());
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let site = Site::new();
    site.configure(&[]).assert().code(0);
    let old = site.text(CONF);
    // With the signal ignored, a write past the limit of 0 blocks fails with EFBIG.
    for (trap, code) in [("trap '' XFSZ;", Some(1)), ("", None)] {
        let mut shell = site.command("/bin/sh");
        shell.args(["-c", &format!("{trap} ulimit -c 0; ulimit -f 0; exec \"$0\" configure -u 1"), LEA]);
        let output = shell.output().unwrap();
        assert_eq!(output.status.code(), code, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(site.text(CONF), old);
        if code.is_some() {
            assert_eq!(site.listing(), ["configurationFile.conf"]);
        }
    }
    site.configure(&["-u", "1"]).assert().code(0);
    assert_eq!(site.json()["parameters"]["tcpServer"]["port"], 1);
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() {
    let site = Site::new();
    site.put("real.conf", "{}");
    symlink("../real.conf", site.path(CONF)).unwrap();
    for mode in [0o600, 0o640, 0o664] {
        fs::set_permissions(site.path("real.conf"), fs::Permissions::from_mode(mode)).unwrap();
        let before = fs::metadata(site.path("real.conf")).unwrap();
        site.configure(&["-u", &mode.to_string()]).assert().code(0);
        let after = fs::metadata(site.path("real.conf")).unwrap();
        assert_eq!((after.mode() & 0o777, after.uid(), after.gid()), (mode, before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "it was replaced, not written over");
    }
    assert!(fs::symlink_metadata(site.path(CONF)).unwrap().is_symlink());
    assert!(site.json().is_object());

    site.configure(&["--config", "new/deep/lea.conf"]).assert().code(0);
    site.configure(&["--check", "new/deep/lea.conf"]).assert().code(0);
    site.configure(&["--config", "config"]).assert().code(2);
    site.configure(&["--config", "/dev/null"]).assert().code(2);
}

#[test]
fn keys_of_a_site_template_are_kept() {
    let site = Site::new();
    site.put(
        "config/base.conf",
        "\u{feff}{\r\n \"parameters\": {\"loggerLevel\":\"@LOGGERLEVEL\",\r\n  \"tcpServer\": {\"address\":\
         \"@TCPSERVERADDRESS\", \"port\": \"@TCPSERVERPORT\", \"backlog\": 5}},\r\n \"mail\": \"ops@example.test\"}\r\n",
    );
    let said = stderr(&mut site.configure(&["--lenient", "-u", "6004", "-g", "broker", "-k", "1"]));
    assert_eq!(
        site.text(CONF),
        "\u{feff}{\r\n \"parameters\": {\"loggerLevel\":\"DEBUG\",\r\n  \"tcpServer\": {\"address\":\
         \"0.0.0.0\", \"port\": \"6004\", \"backlog\": 5}},\r\n \"mail\": \"ops@example.test\"}\r\n"
    );
    assert_eq!(said.matches("configuration_warning").count(), 2, "{said}");
    assert!(said.contains("unknown key \\\"backlog\\\" in parameters.tcpServer"), "{said}");
    assert!(
        said.contains("flag_without_placeholder flag=--kafka-address placeholder=@KAFKAADDRESS"),
        "{said}"
    );
    site.configure(&["--check"]).assert().code(2);
    site.configure(&["--check", "--lenient"]).assert().code(0);

    let old = site.text(CONF);
    for broken in [
        "{\"parameters\": {\"tcpServer\": {\"port\": @TCPSERVERPORT@}}}".as_bytes(),
        b"{\"parameters\": {\"tcpServer\": {\"port\": 9@TCPSERVERPORT}}}",
        b"{\"parameters\": {\"loggerLevel\": @LOGGERLEVEL}}",
        b"",
        b"{\"\xff\": 1}",
    ] {
        site.put("other.conf", broken).configure(&["--template", "other.conf"]).assert().code(2);
        assert_eq!(site.text(CONF), old);
    }
}

#[test]
fn check_reports_each_error_with_line_and_column() {
    let site = Site::new();
    let check = |text: &str, code: i32, expected: &str| {
        site.put("x.conf", text);
        for args in [&["--check", "x.conf"][..], &["--config", "x.conf", "--check"]] {
            let output = site.configure(args).assert().code(code).get_output().clone();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{text}");
        }
    };
    let ok = "x.conf: OK: TCP on 0.0.0.0:5004; Kafka off; events off\n";
    check("{}", 0, ok);
    check("{\"a\": 1}", 0, &format!("x.conf:1:2: warning: unknown key \"a\"\n{ok}"));
    check("{\n\"a\": 1,\n}", 2, "x.conf:2:7: error: not valid JSON: trailing comma\n");
    check(
        "{\"parameters\": {\"tcpServer\": {\"port\": 25104}, \"events\": {\"lines\": \"5959\", \"syslog\": [\"udp:5514\"]}}}",
        0,
        "x.conf: OK: TCP on 0.0.0.0:25104; Kafka off; events on lines 127.0.0.1:5959, syslog udp 127.0.0.1:5514\n",
    );
    check(
        "{\"parameters\": {\n  \"loggerLevel\": \"LOUD\",\n  \"tcpSrver\": 1,\n  \"tcpServer\": {\"port\": -1}}}",
        2,
        "x.conf:2:18: error: parameters.loggerLevel: \"LOUD\" is not a log level (expected DEBUG, INFO, WARN or ERROR)\n\
         x.conf:3:3: error: unknown key \"tcpSrver\" in parameters; did you mean \"tcpServer\"?\n\
         x.conf:4:25: error: parameters.tcpServer.port: \"-1\" is not a port (expected a number from 1 to 65535, or 0 for off)\n",
    );
    site.configure(&["--check"]).assert().code(2);
    site.configure(&["--check", "--print"]).assert().code(2);
}

#[test]
fn print_shows_the_origin_of_each_value() {
    let site = Site::new();
    site.put(CONF, "{\"parameters\": {\n\"tcpServer\": {\"port\": 6004, \"address\": \"\"},\n\"events\": {\"http\": \"9200\", \"cluster\": \"https://lea:secret@search:9200\"}}}");
    let mut print = site.configure(&["--print", "-w", "t"]);
    let table = print.env("LOGGERLEVEL", "info").assert().code(0).get_output().stdout.clone();
    let table = String::from_utf8(table).unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    let row = |key: &str| {
        let found = rows.iter().find(|row| row[0] == format!("parameters.{key}"));
        let row = found.unwrap_or_else(|| panic!("{key}: {table}"));
        (row[1].trim(), row[2].trim())
    };
    assert_eq!(row("loggerLevel"), ("INFO", "environment variable LOGGERLEVEL"));
    assert_eq!(row("tcpServer.address"), ("-", "config/configurationFile.conf:2:40"));
    assert_eq!(row("tcpServer.port"), ("6004", "config/configurationFile.conf:2:23"));
    assert_eq!(row("kafkaServer.topic"), ("t", "flag --kafka-topic"));
    assert_eq!(row("events.http"), ("127.0.0.1:9200", "config/configurationFile.conf:3:20"));
    assert_eq!(row("events.cluster"), ("https://search:9200", "config/configurationFile.conf:3:39"));
    assert_eq!(row("events.patterns"), ("built-in", "default"));
    assert!(!table.contains("secret"), "{table}");
    let mut print = site.configure(&["--print", "--json", "-w", "t"]);
    let shown = print.env("LOGGERLEVEL", "info").assert().code(0).get_output().stdout.clone();
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["file"], CONF);
    let froms: Vec<_> = shown["values"].as_array().unwrap().iter().map(|value| &value["from"]).collect();
    assert_eq!(froms[0], &json!({ "layer": "environment", "name": "LOGGERLEVEL" }));
    assert_eq!(froms[2], &json!({ "layer": "file", "line": 2, "column": 23 }));
    assert_eq!(froms[3], &json!({ "layer": "default" }));
    assert_eq!(froms[5], &json!({ "layer": "flag", "name": "--kafka-topic" }));

    fs::remove_file(site.path(CONF)).unwrap();
    site.configure(&["--print"]).assert().code(0);
    site.configure(&["--print", "--config", CONF]).assert().code(2);
    site.configure(&["--json"]).assert().code(2);
}

/// Creates a checkout with the scripts; returns a PATH on which `lea` is the binary under test.
fn checkout(site: &Site) -> String {
    for dir in ["co/scripts", "co/config/dashboards", "elsewhere", "bin"] {
        fs::create_dir_all(site.path(dir)).unwrap();
    }
    let dashboards = "config/dashboards/lea.ndjson";
    for file in ["scripts/configure.sh", "scripts/install.sh", "config/base.conf", dashboards, CONF] {
        fs::copy(Path::new(ROOT).join(file), site.path("co").join(file)).unwrap();
    }
    symlink(LEA, site.path("bin/lea")).unwrap();
    format!("{}:/usr/bin:/bin", site.path("bin").display())
}

#[test]
fn the_original_script_writes_into_its_checkout_from_any_directory() {
    let site = Site::new();
    let path = checkout(&site);
    let line = "-d INFO -t 0.0.0.0 -u 5004 -g 10.0.0.1 -k 9092 -w interception -i x -p y";
    let mut script = site.command(site.path("co/scripts/configure.sh"));
    script.current_dir(site.path("elsewhere")).env("PATH", &path).args(line.split(' ')).assert().code(0);
    let written = serde_json::from_str::<Value>(&site.text(&format!("co/{CONF}"))).unwrap();
    assert_eq!(written, configuration("INFO", ("0.0.0.0", 5004), ("10.0.0.1", 9092, "interception")));

    let mut script = site.command(site.path("co/scripts/configure.sh"));
    script.current_dir(site.path("elsewhere")).env("PATH", &path);
    script.args(["--config", "my.conf"]).assert().code(0);
    assert!(site.path("elsewhere/my.conf").exists());
    let mut script = site.command(site.path("co/scripts/configure.sh"));
    script.env("PATH", &path).args(["-u", "x"]).assert().code(2);
}

#[test]
fn without_lea_on_the_path_the_script_uses_the_built_one() {
    let site = Site::new();
    checkout(&site);
    fs::create_dir_all(site.path("co/target/release")).unwrap();
    symlink(LEA, site.path("co/target/release/lea")).unwrap();
    let mut script = site.command(site.path("co/scripts/configure.sh"));
    script.env("PATH", "/usr/bin:/bin").env_remove("CARGO_TARGET_DIR").args(["-u", "1"]).assert().code(0);
    assert!(site.text(&format!("co/{CONF}")).contains("\"port\": 1\n"));
}

#[test]
fn install_never_overwrites_a_configuration() {
    let site = Site::new();
    let path = checkout(&site);
    // The build is not under test: this cargo does nothing.
    site.put("bin/cargo", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(site.path("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(site.path("target/release")).unwrap();
    fs::copy(LEA, site.path("target/release/lea")).unwrap();
    let install = || {
        let mut script = site.command(site.path("co/scripts/install.sh"));
        script.env("PATH", &path).env("CARGO_TARGET_DIR", site.path("target"));
        script.env("DESTDIR", site.path("dest")).env("PREFIX", "/opt/lea").env_remove("SYSCONFDIR");
        script
    };
    install().assert().code(0);
    let conf = "dest/opt/lea/etc/lea/configurationFile.conf";
    assert_eq!(site.text(conf), fs::read_to_string(Path::new(ROOT).join(CONF)).unwrap());
    for file in [
        "bin/lea",
        "share/man/man1/lea.1",
        "share/man/man1/lea-serve-tcp.1",
        "share/man/man5/lea.conf.5",
        "share/bash-completion/completions/lea",
        "share/zsh/site-functions/_lea",
        "share/fish/vendor_completions.d/lea.fish",
        "share/lea/base.conf",
        "share/lea/dashboards/lea.ndjson",
    ] {
        assert!(site.path(&format!("dest/opt/lea/{file}")).metadata().unwrap().len() > 0, "{file}");
    }
    site.put(conf, "mine");
    install().assert().code(0);
    assert_eq!(site.text(conf), "mine");
    install().arg("--help").assert().code(0);
    install().arg("--prefix=/x").assert().code(2);
}

const FULL: &str = r#"{
  "parameters": {
    "loggerLevel": "WARN",
    "tcpServer": { "address": "10.0.0.9", "port": 6004 },
    "numbers": { "defaultRegion": "GB" },
    "events": { "lines": "5959", "indices": { "calls": "calls" } }
  },
  "mail": "ops@example.test"
}
"#;

#[test]
fn only_the_named_values_change_and_the_old_file_is_kept() {
    let site = Site::new();
    site.put(CONF, FULL);
    site.configure(&["-u", "25200"]).assert().code(0);
    assert_eq!(site.text(CONF), FULL.replace("6004", "25200"));
    assert_eq!(site.text(&format!("{CONF}.bak")), FULL);
    site.configure(&["--set", "events.http=9200", "--set", "numbers.defaultRegion=DE"]).assert().code(0);
    let json = site.json();
    assert_eq!(json["parameters"]["events"]["http"], "9200");
    assert_eq!(json["parameters"]["numbers"]["defaultRegion"], "DE");
    assert_eq!(json["parameters"]["events"]["lines"], "5959");
    assert_eq!(site.text(&format!("{CONF}.bak")), FULL.replace("6004", "25200"));
    // Without a change nothing is written.
    site.configure(&[]).assert().code(0);
    assert_eq!(site.text(&format!("{CONF}.bak")), FULL.replace("6004", "25200"));
}

#[test]
fn a_key_set_to_an_invalid_value_or_unknown_changes_nothing() {
    let site = Site::new();
    site.put(CONF, FULL);
    for (set, expected) in [
        ("events.http=99999", "parameters.events.http"),
        ("tcpSrver.port=1", "did you mean \"tcpServer\"?"),
        ("loggerLevel", "KEY=VALUE"),
        ("events.syslog=[", "not valid JSON"),
    ] {
        let said = stderr(&mut site.configure(&["--set", set]));
        assert!(said.contains(expected), "{set}: {said}");
        site.configure(&["--set", set]).assert().code(2);
        assert_eq!(site.text(CONF), FULL);
    }
    assert_eq!(site.listing(), ["configurationFile.conf"]);
}

#[test]
fn a_mistyped_key_stops_a_start_unless_lenient() {
    let site = Site::new();
    site.put(CONF, r#"{"parameters": {"tcpSrver": {"address": "", "port": 0}}}"#);
    let said = stderr(site.command(LEA).args(["run"]));
    assert!(said.contains("did you mean \"tcpServer\"?"), "{said}");
    site.command(LEA).arg("run").assert().code(2);
    site.put(CONF, r#"{"parameters": {"mine": 1, "tcpServer": {"address": "", "port": 0}}}"#);
    let said = stderr(site.command(LEA).args(["run", "--lenient"]));
    assert!(said.contains("configuration_warning") && said.contains("enables no receiver"), "{said}");
}
