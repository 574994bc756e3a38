//! The table of forms.

use super::*;

/// A form of dumps.
struct Form {
    what: &'static str,
    /// The tool or option that writes it.
    written_by: &'static str,
    dump: Vec<u8>,
}

const fn new(what: &'static str, written_by: &'static str, dump: Vec<u8>) -> Form {
    Form { what, written_by, dump }
}

fn place(nth: usize) -> Value {
    json!({"topic": "interception", "partition": 0, "offset": nth})
}

/// An object with the position of a record and more members.
pub(super) fn placed(nth: usize, more: Value) -> Value {
    let mut object = place(nth);
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn lines_of_values() -> Vec<Form> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let data = |encode: &dyn Fn(&[u8]) -> String| {
        stream().chunks(100).map(|data| value(&encode(data)) + "\n").collect::<String>().into_bytes()
    };
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mime = |data: &[u8]| {
        let text = STANDARD.encode(data);
        format!("{}\\r\\n{}", &text[..76], &text[76..])
    };
    let bytes = stream()
        .chunks(100)
        .map(|data| json!({"interceptionfilename": NAME, "data": data}).to_string() + "\n")
        .collect::<String>();
    vec![
        new("values", "`kcat -C`, console consumer", lines(|_, value| value.to_owned())),
        new("values with a member `topic`", "some producers", form("values-with-a-topic-member.jsonl")),
        new("values, byte order mark", "editors", form("bom.jsonl")),
        new(
            "values after five bytes",
            "serializers of a schema registry",
            form("confluent-json-schema-kcat-values.bin"),
        ),
        new("values, each a JSON string", "StringConverter", lines(|_, value| json!(value).to_string())),
        new("`data` in url-safe base64", "some producers", data(&|data| url_safe.encode(data))),
        new("`data` in MIME base64", "some producers", data(&mime)),
        new("`data` in hexadecimal", "some producers", data(&hex)),
        new("`data` as an array of bytes", "some producers", bytes.into_bytes()),
        new("values, compressed", "`gzip`", gzip(&plain())),
        new("values, compressed", "`zstd`", zstd::encode_all(&plain()[..], 1).unwrap()),
        new("values, compressed", "`xz`", compress("xz", &plain())),
        new("values, compressed", "`bzip2`", compress("bzip2", &plain())),
        new("values, compressed", "`lz4`", lz4(&plain())),
    ]
}

/// One value per line.
fn plain() -> Vec<u8> {
    lines(|_, value| value.to_owned())
}

/// Compresses with a tool.
fn compress(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let output = assert_cmd::Command::new(tool).arg("-c").write_stdin(bytes).assert().success();
    output.get_output().stdout.clone()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn values_in_other_arrangements() -> Vec<Form> {
    let rubydebug = |_: usize, value: &str| {
        let value = object(value);
        let member =
            |(name, value): (&String, &Value)| format!("    {:>24} => {value}", format!("\"{name}\""));
        format!("{{\n{}\n}}", value.as_object().unwrap().iter().map(member).collect::<Vec<_>>().join(",\n"))
    };
    vec![
        new("values, `;` between them", "`kcat -D ';'`", form("kcat-D-semicolon.txt")),
        new("values, NUL after each", "`kcat -f '%s\\0'`", nul_after_each()),
        new("an array of values", "`jq -s`", array(|_, value| object(value))),
        new("pretty-printed values", "`jq`, kaf", pretty(|_, value| object(value))),
        new("events of the rubydebug codec", "Logstash", lines(rubydebug)),
        new(
            "a key and any separator before the value",
            "`kcat -K:`",
            lines(|nth, value| format!("key{nth}:{value}")),
        ),
        new(
            "a JSON key before the value",
            "`kcat -K ' '`",
            lines(|nth, value| format!("{{\"id\":{nth}}} {value}")),
        ),
        new("values between lines of metadata", "`kcat -f` as in its manual", lines(with_metadata)),
        new(
            "text before the value",
            "`kcat -f 'Topic %t [%p] at offset %o: key %k: %s\\n'`",
            lines(|nth, value| format!("Topic interception [0] at offset {nth}: key : {value}")),
        ),
    ]
}

/// The example in the manual of kcat.
fn with_metadata(nth: usize, value: &str) -> String {
    format!(
        "\nKey (1 bytes): k\t\nValue ({} bytes): {value}\nTimestamp: 1\tPartition: 0\tOffset: {nth}\n--",
        value.len()
    )
}

fn nul_after_each() -> Vec<u8> {
    values().iter().map(|value| format!("{value}\0")).collect::<String>().into_bytes()
}

fn envelopes() -> Vec<Form> {
    vec![
        new("envelopes", "`kcat -J`", lines(|nth, value| placed(nth, json!({"payload": value})).to_string())),
        new("pretty-printed envelopes", "`kcat -J \\| jq`", form("jq-pretty-kcat-J.json")),
        new("an array, newest first", "kafka-ui", form("kafka-ui-export.json")),
        new("`value` as text", "rpk, kt, AKHQ", pretty(|nth, value| placed(nth, json!({"value": value})))),
        new(
            "`value` in hexadecimal or base64",
            "`kt -encodevalue`",
            lines(|nth, value| placed(nth, json!({"value": STANDARD.encode(value)})).to_string()),
        ),
        new("`payload` as an object", "`kaf -o json`", lines(|nth, value| placed(nth, json!({"payload": object(value)})).to_string())),
        new(
            "an array, `value` as base64 or an object",
            "REST proxy v2",
            array(|nth, value| placed(nth, json!({"key": null, "value": STANDARD.encode(value)}))),
        ),
        new(
            "`records` in an object",
            "requests to the REST proxy v2",
            json!({"records": values().iter().map(|value| json!({"value": object(value)})).collect::<Vec<_>>()})
                .to_string()
                .into_bytes(),
        ),
        new(
            "`value` with `type` and `data`",
            "REST proxy v3",
            lines(|_, value| json!({"value": {"type": "BINARY", "data": STANDARD.encode(value)}}).to_string()),
        ),
        new(
            "`schema` and `payload`",
            "JsonConverter of Connect's S3 sink",
            lines(|_, value| json!({"schema": {"type": "struct"}, "payload": object(value)}).to_string()),
        ),
        new(
            "`message`, position next to it",
            "Vector",
            lines(|nth, value| placed(nth, json!({"message": value, "source_type": "kafka"})).to_string()),
        ),
        new(
            "`message`, position in `kafka`",
            "Filebeat",
            lines(|nth, value| json!({"message": value, "kafka": place(nth)}).to_string()),
        ),
    ]
}

fn row(form: &Form) -> String {
    let (summary, stored) = decode_bytes(&form.dump, &[]);
    let Form { what, written_by, .. } = form;
    assert!(stored == stream(), "{what}: {}: {}", stored.len(), summary.stderr);
    let (records, rejected) =
        (summary.number("records"), summary.number("rejected") + summary.number("damaged"));
    format!("| {what} | {written_by} | {} | {records} | {rejected} | {} |", summary.format(), summary.exit)
}

#[test]
fn the_table_of_forms_is_true() {
    let forms = [lines_of_values(), values_in_other_arrangements(), envelopes(), tools_of_the_broker()]
        .into_iter()
        .flatten();
    let mut table =
        "| form | written by | `--format` | records | refused | exit |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for form in forms {
        table.push_str(&row(&form));
        table.push('\n');
    }
    check_table(&table);
}

/// Forms of the tools of the broker.
fn tools_of_the_broker() -> Vec<Form> {
    let console = |nth: usize, value: &str| format!("CreateTime:1\tPartition:0\tOffset:{nth}\tkey\t{value}");
    let head = "Dumping /data/interception-0/0.log\n";
    let bare = |nth: usize, value: &str| {
        format!("baseOffset: {nth} lastOffset: {nth} count: 1 isvalid: true\n| key: k payload: {value}")
    };
    let bare = [head.as_bytes(), &lines(bare)].concat();
    vec![
        new("columns before the value", "console consumer with properties", lines(console)),
        new(
            "text of a segment, keys with line ends",
            "`kafka-dump-log --print-data-log`",
            form("dump-log-key-with-newline.txt"),
        ),
        new("the same without metadata", "`kafka-dump-log`, records without metadata", bare),
        new(
            "a segment with an aborted transaction",
            "the broker",
            form("aborted/interception-0/00000000000000000000.log"),
        ),
    ]
}

/// Compares the table with the one in the documentation, or writes it there.
fn check_table(table: &str) {
    let path = format!("{}/docs/decode.md", env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(&path).unwrap();
    let start = document.find("| form | written by |").expect("docs/decode.md has the table");
    let end = start + document[start..].find("\n\n").unwrap() + 1;
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(&path, format!("{}{table}{}", &document[..start], &document[end..])).unwrap();
    } else {
        assert_eq!(&document[start..end], table, "LEA_UPDATE=1 rewrites docs/decode.md");
    }
}
