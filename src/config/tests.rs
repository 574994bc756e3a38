//! Tests of the layers: precedence, errors and their positions.

use std::collections::HashMap;

use super::*;

/// A site's file; ports are not quoted.
const SITE: &str = r#"{
  "parameters": {
    "loggerLevel": "INFO",
    "tcpServer": { "address": "10.0.0.9", "port": 6004 },
    "kafkaServer": { "address": "10.0.0.1", "port": 9092, "topic": "interception_data" }
  }
}
"#;

fn parse(text: &str) -> FileLayer {
    FileLayer::parse(Path::new("f"), text.as_bytes())
}

fn with(
    flags: &[(&'static ConfigKey, &str)],
    env: &[(&str, &str)],
    file: Option<&str>,
) -> (EffectiveConfig, Vec<Finding>) {
    let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
    let env: HashMap<_, _> = env.iter().copied().collect();
    let file = file.map(parse);
    let look_up = |name: &str| env.get(name).map(|value| (*value).to_owned());
    resolve(&ConfigLayers { flags: &flags, env: &look_up, file: file.as_ref(), is_lenient: false })
}

#[test]
fn without_layers_the_defaults_apply() {
    let (effective, errors) = with(&[], &[], None);
    assert_eq!(errors, []);
    assert_eq!(effective.logger_level, LevelFilter::Debug);
    assert_eq!(effective.tcp.unwrap().to_string(), "0.0.0.0:5004");
    assert_eq!(effective.kafka, None);
    let values: Vec<_> = effective.values.iter().map(|value| (value.text.as_str(), value.origin)).collect();
    let defaults = ["DEBUG", "0.0.0.0", "5004", "", "5002", "interception"];
    assert_eq!(values, defaults.map(|text| (text, ValueOrigin::Default)));
}

#[test]
fn a_higher_layer_wins_value_by_value() {
    let in_file = ValueOrigin::File { line: 4, column: 51 };
    let flag = [(&TCP_PORT, "1")];
    let env = [("TCPSERVERPORT", "2")];
    let table: [(&[_], &[_], _, _, _); 8] = [
        (&flag, &env, Some(SITE), "1", ValueOrigin::Flag("--tcp-port")),
        (&flag, &env, None, "1", ValueOrigin::Flag("--tcp-port")),
        (&flag, &[], Some(SITE), "1", ValueOrigin::Flag("--tcp-port")),
        (&flag, &[], None, "1", ValueOrigin::Flag("--tcp-port")),
        (&[], &env, Some(SITE), "2", ValueOrigin::Environment("TCPSERVERPORT")),
        (&[], &env, None, "2", ValueOrigin::Environment("TCPSERVERPORT")),
        (&[], &[], Some(SITE), "6004", in_file),
        (&[], &[], None, "5004", ValueOrigin::Default),
    ];
    for (flags, env, file, text, origin) in table {
        let (effective, errors) = with(flags, env, file);
        assert_eq!(errors, []);
        assert_eq!(effective.values[2], ConfigValue { key: &TCP_PORT, text: text.to_owned(), origin });
        let level = if file.is_some() { LevelFilter::Info } else { LevelFilter::Debug };
        assert_eq!(effective.logger_level, level, "the other values stay as they are");
    }
}

#[test]
fn each_variable_and_flag_sets_its_own_value() {
    let texts = ["ERROR", "::1", "1", "broker", "2", "t"];
    for (nth, key) in KEYS.iter().enumerate() {
        for (flags, env) in [(vec![(*key, texts[nth])], vec![]), (vec![], vec![(key.variable, texts[nth])])] {
            let (effective, errors) = with(&flags, &env, None);
            assert_eq!(errors, []);
            for (other, value) in effective.values.iter().enumerate() {
                let expected = if other == nth { texts[nth] } else { KEYS[other].default };
                assert_eq!(value.text, expected, "{} after {}", value.key.path, key.path);
            }
        }
    }
}

#[test]
fn a_file_of_a_site_sets_all_values() {
    let (effective, errors) = with(&[], &[], Some(SITE));
    assert_eq!((errors, effective.warnings), (vec![], vec![]));
    assert_eq!(effective.tcp, Some(HostPort { address: "10.0.0.9".to_owned(), port: 6004 }));
    let broker = HostPort { address: "10.0.0.1".to_owned(), port: 9092 };
    assert_eq!(effective.kafka, Some(KafkaSource { broker, topic: "interception_data".to_owned() }));
    assert_eq!(effective.file, Some(PathBuf::from("f")));
}

#[test]
fn byte_order_mark_carriage_returns_and_quoted_ports_are_accepted() {
    let windows = format!("\u{feff}{}", SITE.replace('\n', "\r\n").replace("6004", "\"6004\""));
    let (effective, errors) = with(&[], &[], Some(&windows));
    assert_eq!((errors, effective.warnings), (vec![], vec![]));
    assert_eq!(effective.tcp.unwrap().to_string(), "10.0.0.9:6004");
}

#[test]
fn an_empty_address_or_port_0_is_off() {
    for (key, text, tcp_on, kafka_on) in [
        (&TCP_ADDRESS, "", false, true),
        (&TCP_PORT, "0", false, true),
        (&KAFKA_ADDRESS, "", true, false),
        (&KAFKA_PORT, "0", true, false),
    ] {
        for (flags, env) in [(vec![(key, text)], vec![]), (vec![], vec![(key.variable, text)])] {
            let (effective, errors) = with(&flags, &env, Some(SITE));
            assert_eq!(errors, []);
            assert_eq!(
                (effective.tcp.is_some(), effective.kafka.is_some()),
                (tcp_on, kafka_on),
                "{}",
                key.path
            );
        }
    }
    let off = SITE.replace("10.0.0.9", "").replace("9092", "0").replace("interception_data", "");
    let (effective, errors) = with(&[], &[], Some(&off));
    assert_eq!((errors, effective.tcp, effective.kafka), (vec![], None, None));
    assert_eq!(effective.values[5].text, "interception");
}

#[test]
fn an_empty_level_or_port_is_ignored_in_the_environment_and_an_error_elsewhere() {
    for key in [&LOGGER_LEVEL, &TCP_PORT, &KAFKA_PORT] {
        let (effective, errors) = with(&[], &[(key.variable, "")], None);
        assert_eq!((errors, effective.values[0].origin), (vec![], ValueOrigin::Default));
        assert_eq!(with(&[(key, "")], &[], None).1[0].origin, ValueOrigin::Flag(key.flag));
    }
    assert_eq!(with(&[], &[], Some(&SITE.replace("6004", "\"\""))).1.len(), 1);
}

#[test]
fn ports_from_0_to_65535_are_valid() {
    for (text, right) in [
        ("0", true),
        ("1", true),
        ("65535", true),
        ("\"5004\"", true),
        ("\" 5004 \"", true),
        ("65536", false),
        ("-1", false),
        ("5004.0", false),
        ("5e3", false),
        ("\"port\"", false),
        ("true", false),
        ("null", false),
        ("[5004]", false),
        ("{}", false),
    ] {
        let (_, errors) = with(&[], &[], Some(&SITE.replace("6004", text)));
        assert_eq!(errors.is_empty(), right, "{text}: {errors:?}");
        assert!(
            errors.iter().all(|error| error.origin == ValueOrigin::File { line: 4, column: 51 }),
            "{errors:?}"
        );
    }
}

#[test]
fn errors_below_a_higher_layer_are_reported() {
    let file = SITE.replace("INFO", "LOUD").replace("6004", "65536").replace("\"10.0.0.1\"", "[]");
    let (_, errors) =
        with(&[(&TCP_PORT, "5004")], &[("KAFKAPORT", "x"), ("LOGGERLEVEL", "INFO")], Some(&file));
    let places: Vec<_> = errors.iter().map(|error| error.origin.to_string()).collect();
    assert_eq!(
        places,
        ["environment variable KAFKAPORT", "line 3, column 20", "line 4, column 51", "line 5, column 33"]
    );
    let error = fail_on_findings(Some(&parse(&file)), &errors).unwrap_err();
    assert_eq!(error.exit(), crate::Exit::Usage);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "f: environment variable KAFKAPORT: parameters.kafkaServer.port: \"x\" is not a port"
        ),
        "{text}"
    );
    assert!(
        text.contains("; line 4, column 51: parameters.tcpServer.port: \"65536\" is not a port"),
        "{text}"
    );
}

fn check_file(text: &str, errors: &[&str], warnings: &[&str]) {
    let file = parse(text);
    let said = |findings: &[Finding]| findings.iter().map(Finding::to_string).collect::<Vec<_>>();
    assert_eq!(said(&file.errors), errors, "{text:?}");
    let mut found = [&file.warnings[..], &file.unknown_keys].concat();
    found.sort_by_key(|finding| finding.origin);
    assert_eq!(said(&found), warnings, "{text:?}");
}

#[test]
fn errors_and_warnings_have_line_and_column() {
    check_file("", &["line 1, column 1: the file is empty"], &[]);
    check_file("[]", &["line 1, column 1: the configuration: expected an object, found a list"], &[]);
    check_file("{}", &[], &[]);
    check_file(
        "{\n  \"parameters\": {,}\n}",
        &["line 2, column 18: not valid JSON: key must be a string"],
        &[],
    );
    check_file(
        "{\"parameters\":\n {\"tcpServer\": 5}}",
        &["line 2, column 16: parameters.tcpServer: expected an object, found a number"],
        &[],
    );
    check_file(
        "{\"loggerLevel\": 1,\n \"parameters\": {\"loggerlevel\": 1, \"a\\n\": {}, \"tcpServer\": {\"ports\": []}}}",
        &[],
        &[
            "line 1, column 2: unknown key \"loggerLevel\"",
            "line 2, column 17: unknown key \"loggerlevel\" in parameters; did you mean \"loggerLevel\"?",
            "line 2, column 42: unknown key \"a\\n\" in parameters",
            "line 2, column 60: unknown key \"ports\" in parameters.tcpServer; did you mean \"port\"?",
        ],
    );
    check_file(
        "{\"parameters\": {\"loggerLevel\": \"\\ud800\"}}",
        &["line 1, column 39: not valid JSON: unexpected end of hex escape"],
        &[],
    );
}

#[test]
fn the_last_of_repeated_keys_counts() {
    let text = "{\"parameters\":{\"tcpServer\":{\"port\":{},\n\"port\":2},\n\"tcpServer\":{\"port\":3}}}";
    check_file(
        text,
        &[],
        &[
            "line 2, column 1: parameters.tcpServer.port is given more than once; the last value is used",
            "line 3, column 1: parameters.tcpServer is given more than once",
            "line 3, column 14: parameters.tcpServer.port is given more than once; the last value is used",
        ],
    );
    assert_eq!(with(&[], &[], Some(text)).0.tcp.unwrap().port, 3);
}

#[test]
fn findings_are_bounded() {
    let keys: Vec<_> = (0..150).map(|nth| format!("\"k{nth}\":0")).collect();
    let file = parse(&format!("{{{}}}", keys.join(",")));
    assert_eq!(file.warnings.len(), 101);
    assert_eq!(file.warnings[100].text, "and 50 more like this");
    assert_eq!(parse(&format!("{{{}}}", keys[..100].join(","))).warnings.len(), 100);
}

#[test]
fn invalid_utf_8_has_a_position() {
    let file = FileLayer::parse(Path::new("f"), b"{\n  \"a\": \"\xff\"}");
    assert_eq!(file.errors[0].to_string(), "line 2, column 9: not valid UTF-8");
}

/// Parses every prefix, suffix and one-byte change of a real file, and noise.
#[test]
fn no_input_causes_a_panic() {
    let site = SITE.as_bytes();
    let survives = |bytes: &[u8]| {
        let file = FileLayer::parse(Path::new("f"), bytes);
        resolve(&ConfigLayers { flags: &[], env: &|_| None, file: Some(&file), is_lenient: false })
    };
    for end in 0..=site.len() {
        survives(&site[..end]);
        survives(&site[end..]);
    }
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for at in 0..site.len() {
        for byte in [0, b'"', b'\\', b'{', b'}', b'[', b'@', b'9', b'\n', 0x7f, 0xc3, 0xff] {
            let mut bytes = site.to_vec();
            bytes[at] = byte;
            survives(&bytes);
            let mut scrambled: Vec<u8> = Vec::with_capacity(64);
            for _ in 0..64 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let alphabet = b"{}[]\":,\\u0d8 \n\tae1-.\xc3\xa9\xff";
                scrambled.push(alphabet[noise as usize % alphabet.len()]);
            }
            survives(&scrambled);
        }
    }
}

#[test]
fn a_named_file_must_exist_and_have_a_valid_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lea.conf");
    let missing = load(Some(&path), false, &|_| None).unwrap_err();
    assert!(matches!(&missing, Error::Config { reason, .. } if reason.contains("No such file")), "{missing}");
    assert!(FileLayer::read_if_exists(&path).unwrap().is_none());

    let padded = |bytes: u64| format!("{{}}{}", " ".repeat(bytes as usize - 2));
    std::fs::write(&path, padded(FILE_BYTES_MAX)).unwrap();
    assert_eq!(load(Some(&path), false, &|_| None).unwrap().file, Some(path.clone()));
    std::fs::write(&path, padded(FILE_BYTES_MAX + 1)).unwrap();
    assert!(matches!(load(Some(&path), false, &|_| None), Err(Error::Config { .. })));
    assert!(matches!(load(Some(dir.path()), false, &|_| None), Err(Error::Config { .. })));
}

#[test]
fn ipv6_is_displayed_in_brackets() {
    let listen = HostPort { address: "::1".to_owned(), port: 5004 };
    assert_eq!(listen.to_string(), "[::1]:5004");
}

#[test]
fn an_unknown_key_is_an_error_unless_lenient() {
    let file = parse("{\"mail\": 1, \"parameters\": {\"tcpSrver\": {}, \"numbers\": {\"field\": []}}}");
    let resolve_with =
        |is_lenient| resolve(&ConfigLayers { flags: &[], env: &|_| None, file: Some(&file), is_lenient });
    let (effective, errors) = resolve_with(false);
    let texts: Vec<_> = errors.iter().map(|error| error.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "unknown key \"tcpSrver\" in parameters; did you mean \"tcpServer\"?",
            "unknown key \"field\" in parameters.numbers; did you mean \"fields\"?"
        ]
    );
    assert_eq!(effective.warnings.len(), 1, "a key outside parameters may belong to another program");
    let (effective, errors) = resolve_with(true);
    assert_eq!((errors, effective.warnings.len()), (vec![], 3));
}
